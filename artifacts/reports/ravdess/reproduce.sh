#!/usr/bin/env bash
# Every number in results.md: the five published folds, validation on actors that are never tested.
#   bash artifacts/reports/ravdess/reproduce.sh RAVDESS [WHISPER [MN04]]
# WHISPER: folder or name on the hub of Whisper base; MN04: mn04_as_mAP_432.pt. Without them both are downloaded.
set -euo pipefail
data=${1:?give the folder of RAVDESS}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}

# Three recipes were trained before `level=active` was the default; two of them with the preset that small-cnn had then.
# ravdess-small-cnn-before-emotion.json is what commit 1f6ad59 wrote as ravdess-small-cnn-emotion.json, but for its name.
old_preset=(--model small-cnn --n-mels 64 --lr 0.002 --use-specaug --specaug-freq 12 --specaug-time 20 --freq-warp 0.1
  --label-smoothing 0.1 --weight-decay 0.05 --ema-decay 0.99 --epochs 30 --patience 0 --level as-is)

train() { # NAME FOLD SETTINGS...
  local name=$1-fold$2 fold=$2
  [ -f "$SAMO_ARTIFACTS/runs/$name/report.json" ] && return
  samo train --data-root "$data" "${@:3}" --split folds --fold "$fold" --val-ratio 0.17 --threads 1 --name "$name"
  samo evaluate "$name" >/dev/null
}

for fold in 0 1 2 3 4; do
  train ravdess-small-cnn-emotion "$fold" --preset ravdess-small-cnn
  train ravdess-resnet18-emotion "$fold" --preset ravdess-resnet18 --level as-is
  train ravdess-small-cnn-before-emotion "$fold" "${old_preset[@]}"
  train ravdess-small-cnn-sentiment "$fold" "${old_preset[@]}" --mode sentiment
done
folds() { # NAME SETTINGS...
  [ -f "$SAMO_ARTIFACTS/grids/$1/report.json" ] && return
  samo crossval --modality audio --data-root "$data" --name "$1" --workers 2 "${@:2}" >/dev/null
}
whisper=(--preset whisper-frozen --encoder "${2:-openai/whisper-base}")
folds functionals --model functionals
folds small-cnn --preset small-cnn --threads 1 --baseline none --seeds 0,1,2
folds small-cnn-bins --preset small-cnn-bins --threads 1 --baseline none
folds whisper-frozen "${whisper[@]}" --refit
folds whisper-frozen-sentiment "${whisper[@]}" --mode sentiment
# Both small networks were trained before `crossval` averaged the last epochs' weights.
head=(--preset whisper-head --encoder "${2:-openai/whisper-base}" --keep best)
folds whisper-head "${head[@]}" --seeds 0,1,2
# Heard at two more speeds; then centred by speaker as well, which is another question (docs/how-numbers-are-made.md).
speeds=(--speed 0.1 --speed-steps 1 --baseline none)
folds whisper-frozen-speed "${whisper[@]}" "${speeds[@]}" --seeds 0,1,2
folds whisper-kernel --preset whisper-kernel --encoder "${2:-openai/whisper-base}" --baseline none --threads 1 --seeds 0,1,2
folds whisper-frozen-views "${whisper[@]}" "${speeds[@]}" --tta-speed 0.1 --threads 1 --seeds 0,1,2
# Trained on a GPU, as small-cnn and whisper-frozen-speed were; what was tried before stands in tuning.md.
folds whisper-tuned --preset whisper-tuned --encoder "${2:-openai/whisper-base}" --baseline none --seeds 0,1,2
folds whisper-frozen-speaker "${whisper[@]}" "${speeds[@]}" --normalisation speaker
folds whisper-frozen-speaker-sentiment "${whisper[@]}" "${speeds[@]}" --normalisation speaker --mode sentiment
folds whisper-head-speaker "${head[@]}" "${speeds[@]}" --normalisation speaker
python "$(dirname "$0")/speaker_clips.py" "$SAMO_ARTIFACTS/grids/whisper-frozen-speaker" "$data"
folds mn04 --preset mn04 ${3:+--weights "$3"}
# Taught by Whisper, each training clip by a copy that heard neither it nor its actor; then on all 24 actors, which is
# the model that comes with SAMO: samo export mn04-distilled/refit -o samo_audio/released/samo-speech.onnx
folds mn04-distilled --preset mn04 ${3:+--weights "$3"} --teacher whisper-frozen --distil-out-of-fold \
  --distil-alpha 0.7 --distil-temperature 2 --refit
together() { # NAME GRIDS FLAGS...
  [ -f "$SAMO_ARTIFACTS/grids/$1/report.json" ] || samo ensemble --grids "$2" --name "$1" "${@:3}" >/dev/null
}
# As mn04-distilled, but longer, at the whole rate, and by the teacher at three speeds; tuning.md has what was tried.
folds mn04-distilled-long --preset mn04 ${3:+--weights "$3"} --epochs 45 --trunk-lr-scale 1.0 --keep average \
  --teacher whisper-frozen-speed --distil-out-of-fold --distil-alpha 0.7 --distil-temperature 2 --threads 1 --baseline none
together best whisper-tuned,whisper-kernel,whisper-head
together best-seeds whisper-tuned,whisper-kernel,whisper-head --all-seeds
together best-speaker whisper-frozen-speaker,whisper-head-speaker
python "$(dirname "$0")/pairs.py" "$SAMO_ARTIFACTS"
python "$(dirname "$0")/summarise.py" "$SAMO_ARTIFACTS" ravdess-resnet18-emotion ravdess-small-cnn-emotion \
  ravdess-small-cnn-before-emotion ravdess-small-cnn-sentiment functionals small-cnn small-cnn-bins mn04 mn04-distilled \
  mn04-distilled-long whisper-frozen whisper-frozen-sentiment whisper-frozen-speed whisper-frozen-views whisper-kernel whisper-head whisper-tuned best best-seeds \
  whisper-frozen-speaker whisper-frozen-speaker-sentiment whisper-head-speaker best-speaker

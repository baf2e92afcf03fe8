#!/usr/bin/env bash
# Every number of "Speed" in docs/results.md. Some minutes; a busy machine makes all of it wrong.
#   bash artifacts/reports/speed/reproduce.sh ../shared/data/ravdess ../shared/data/goemotions ../shared/models/all-MiniLM-L6-v2 \
#     ../shared/models/whisper-base-encoder ../shared/models/mn04_as_mAP_432.pt
set -euo pipefail
ravdess=${1:?give the folder of RAVDESS} goemotions=${2:?give the folder of GoEmotions} encoder=${3:?give the folder of MiniLM} whisper=${4:?give the folder of Whisper}
mn04=${5:?give the weights of mn04}
here=$(dirname "$0")
keep() { # FILE COMMAND...
  python "$here/../record.py" "$here/$1" RAVDESS="$ravdess" GOEMOTIONS="$goemotions" MINILM="$encoder" WHISPER="$whisper" MN04="$mn04" \
    -- "${@:2}"
}
keep precision.txt python benchmarks/precision.py --steps 12
for model in small-cnn resnet18; do
  keep "trainer-$model.txt" python benchmarks/trainer_overhead.py --model "$model" --steps 30 --data-root RAVDESS
done
keep trainer-mn04.txt python benchmarks/trainer_overhead.py --model mn04 --weights MN04 --data-root RAVDESS --steps 9
keep trainer-text-encoder.txt python benchmarks/trainer_overhead.py --modality text --model encoder --encoder MINILM --steps 13
keep trainer-speech-encoder.txt python benchmarks/trainer_overhead.py --model encoder --encoder WHISPER --data-root RAVDESS --steps 11
keep allocator.txt python benchmarks/allocator.py --data-root RAVDESS --encoder WHISPER --rounds 3
keep commands.txt python benchmarks/commands.py --data-root RAVDESS
# States of all clips are kept once this has run before.
keep heads.txt samo crossval --preset whisper-frozen --encoder WHISPER --data-root RAVDESS --seeds 0,1,2 --threads 1 --workers 2 --baseline none --name heads
keep text-batches.txt python benchmarks/text_batches.py --data-root GOEMOTIONS --encoder MINILM --rounds 3
python "$here/../record.py" "$here/installation.txt" VENV=.venv -- du -sm VENV

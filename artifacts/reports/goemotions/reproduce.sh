#!/usr/bin/env bash
# Every number in results.md and losses.md. Thresholds, epochs and temperatures come from the validation part alone.
#   bash artifacts/reports/goemotions/reproduce.sh ../shared/data/goemotions ../shared/models/all-MiniLM-L6-v2
set -euo pipefail
data=${1:?give the folder of GoEmotions}
encoder=${2:-sentence-transformers/all-MiniLM-L6-v2}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
# The range of thresholds was the default when these were trained, and they were neither shrunk nor smoothed; epochs were
# then selected over 21 from 0.01 to 0.95.
ranged=(--threshold-range 0.1 0.9 --num-thresholds 20 --threshold-shrinkage 0 --threshold-smoothing 0)
run() { # NAME flags...
  local name=$1
  shift
  [ -f "$SAMO_ARTIFACTS/runs/$name/report.json" ] && return
  samo train --modality text --data-root "$data" --threads 1 "${ranged[@]}" --name "$name" "$@"
  samo evaluate "$name" --threads 1 >/dev/null
}
for mode in emotion ekman sentiment; do
  run "goemotions-tfidf-$mode" --preset tfidf --mode $mode
done
for seed in 0 1 2; do
  run "goemotions-textcnn-emotion-seed$seed" --preset textcnn --seed $seed
done
run goemotions-minilm-emotion-seed0 --preset minilm --encoder "$encoder"
python "$(dirname "$0")/summarise.py" "$SAMO_ARTIFACTS"
samo ablate losses --data-root "$data" --model encoder --encoder "$encoder" --freeze-encoder --head-layers 2 --threads 1 "${ranged[@]}"
cp "$SAMO_ARTIFACTS/grids/losses/table.md" "$(dirname "$0")/losses.md"
python "$(dirname "$0")/thresholds.py" "$SAMO_ARTIFACTS/grids/losses"
keep() { # FILE COMMAND...
  python "$here/../record.py" "$here/$1" GOEMOTIONS="$data" MINILM="$encoder" ARTIFACTS="$SAMO_ARTIFACTS" -- "${@:2}"
}
here=$(dirname "$0")
keep zero-shot.txt samo zero-shot --labels-file artifacts/reports/goemotions/zero_shot_labels.toml --encoder MINILM --data-root GOEMOTIONS --threads 1 --json
keep corpus.txt samo data inspect --modality text --dataset goemotions --data-root GOEMOTIONS
# Three seeds and tf-idf under today's range of thresholds, in a folder of their own; crossfit.py reads validation alone.
together=$SAMO_ARTIFACTS/together
member() { # NAME flags...
  local name=$1
  shift
  [ -f "$together/runs/$name/report.json" ] && return
  samo train --modality text --data-root "$data" --threads 1 --artifacts "$together" --name "$name" "$@"
  samo evaluate "$name" --threads 1 --artifacts "$together" >/dev/null
}
members=()
for seed in 0 1 2; do
  member "goemotions-minilm-emotion-seed$seed" --preset minilm --encoder "$encoder" --seed $seed
  members+=("$together/runs/goemotions-minilm-emotion-seed$seed")
done
member goemotions-tfidf-emotion --preset tfidf
members+=("$together/runs/goemotions-tfidf-emotion")
# Decided before the third seed was trained.
python "$here/crossfit.py" "${members[0]}" "${members[1]}" "${members[3]}"
python "$here/ensemble.py" "${members[@]}"
# Under the asymmetric loss.
asymmetric=()
for seed in 3 4; do
  member "goemotions-minilm-asymmetric-seed$seed" --preset minilm-asymmetric --encoder "$encoder" --seed $seed
  asymmetric+=("$together/runs/goemotions-minilm-asymmetric-seed$seed")
done
# What was looked at, in validation, before the test part of the first was opened.
python "$here/crossfit.py" --to crossfit-asymmetric "${members[0]}" "${members[1]}" "${members[2]}" "${asymmetric[0]}"
python "$here/ensemble.py" --to asymmetric "${asymmetric[@]}"

#!/usr/bin/env bash
# Every number in results.md: two networks, the five published folds, validation on four actors that are never tested.
#   bash artifacts/reports/ravdess/reproduce.sh ../shared/data/ravdess
set -euo pipefail
data=${1:?give the folder of RAVDESS}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
for fold in 0 1 2 3 4; do
  for job in "small-cnn emotion" "resnet18 emotion" "small-cnn sentiment"; do
    read -r model mode <<<"$job"
    name=ravdess-$model-$mode-fold$fold
    [ -f "$SAMO_ARTIFACTS/runs/$name/report.json" ] && continue
    samo train --data-root "$data" --preset "ravdess-$model" --mode "$mode" \
      --split folds --fold "$fold" --val-ratio 0.17 --threads 1 --name "$name"
    samo evaluate "$name" >/dev/null
  done
done
python "$(dirname "$0")/summarise.py" "$SAMO_ARTIFACTS" ravdess-resnet18-emotion ravdess-small-cnn-emotion ravdess-small-cnn-sentiment

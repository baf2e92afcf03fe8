#!/usr/bin/env bash
# Every number in results.md: the seven recipes on two questions, three seeds, then ensembles of the five best cells of a seed.
#   bash artifacts/reports/recipes/reproduce.sh ../shared/data/ravdess
# They were trained before `level=active` was the default. About 2 hours on two cores: 2 to 4 minutes a small-cnn cell and 11 a resnet18 cell, each on one core.
set -euo pipefail
data=${1:?give the folder of RAVDESS}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
for mode in sentiment emotion; do
  samo ablate recipes --name "$mode" --data-root "$data" --mode "$mode" --n-mels 64 --epochs 20 \
    --train-ratio 0.65 --val-ratio 0.15 --level as-is --threads 1
done
python "$(dirname "$0")/ensembles.py" "$SAMO_ARTIFACTS" "$data" sentiment emotion

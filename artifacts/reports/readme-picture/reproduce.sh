#!/usr/bin/env bash
# The run of the picture in README.md: one fold, one seed (0), five test speakers; report.json and environment.json are its own.
#   bash artifacts/reports/readme-picture/reproduce.sh ../shared/data/ravdess
set -euo pipefail
data=${1:?give the folder of RAVDESS}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
# It was trained before `level=active` was the default, with the settings that the preset ravdess-small-cnn then had.
samo train --data-root "$data" --model small-cnn --n-mels 64 --level as-is --lr 0.002 --use-specaug --specaug-freq 12 \
  --specaug-time 20 --freq-warp 0.1 --label-smoothing 0.1 --weight-decay 0.05 --ema-decay 0.99 --patience 0 \
  --split folds --fold 0 --epochs 12 --threads 1 --name ravdess-fold-0
samo evaluate ravdess-fold-0
# The picture itself; needs chromium and the Python package pillow.
python artifacts/reports/readme-picture/take.py "$SAMO_ARTIFACTS/runs/ravdess-fold-0/report.html" docs/images/report.png

#!/usr/bin/env bash
# The run of the picture in README.md: one fold, one seed (0), five test speakers; report.json and environment.json are its own.
#   bash artifacts/reports/readme-picture/reproduce.sh ../shared/data/ravdess
set -euo pipefail
data=${1:?give the folder of RAVDESS}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
samo train --data-root "$data" --preset small-cnn --split folds --fold 0 --threads 1 --name small-cnn-fold0
samo evaluate small-cnn-fold0
# The picture itself; needs chromium and the Python package pillow.
python artifacts/reports/readme-picture/take.py "$SAMO_ARTIFACTS/runs/small-cnn-fold0/report.html" docs/images/report.png

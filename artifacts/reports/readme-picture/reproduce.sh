#!/usr/bin/env bash
# The run of the picture in README.md: one fold, one seed (0), five test speakers; report.json and environment.json are its own.
#   bash artifacts/reports/readme-picture/reproduce.sh ../shared/data/ravdess
set -euo pipefail
data=${1:?give the folder of RAVDESS}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
samo train --data-root "$data" --preset ravdess-small-cnn --split folds --fold 0 --epochs 12 --threads 1 --name ravdess-fold-0
samo evaluate ravdess-fold-0

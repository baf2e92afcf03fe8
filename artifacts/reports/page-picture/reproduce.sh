#!/usr/bin/env bash
# The picture in docs/web-page.md: a model of the demo corpus, and one of its clips, in Chromium.
#   bash artifacts/reports/page-picture/reproduce.sh
# Needs chromium and chromedriver, and the Python packages selenium and pillow.
set -euo pipefail
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
samo train --modality audio --dataset demo --preset demo --name demo-voice
samo evaluate demo-voice
samo train --modality text --dataset demo --preset textcnn --epochs 6 --name demo-text
samo evaluate demo-text
python artifacts/reports/page-picture/take.py docs/images/page.png

#!/usr/bin/env bash
# The text model that comes with SAMO; that of speech is made by artifacts/reports/ravdess/reproduce.sh.
#   bash artifacts/reports/released/reproduce.sh GOEMOTIONS
set -euo pipefail
data=${1:?give the folder of GoEmotions}
samo train --modality text --dataset goemotions --data-root "$data" --preset textcnn --hash-buckets 28672 --name samo-text
samo evaluate samo-text
samo export samo-text -o samo_text/released/samo-text.onnx --quantize int8

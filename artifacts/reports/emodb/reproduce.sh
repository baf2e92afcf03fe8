#!/usr/bin/env bash
# What models of RAVDESS are worth in another language, recorded elsewhere: all clips of EMO-DB whose emotion they know.
# The runs are those of artifacts/reports/ravdess/reproduce.sh, which learned from all of RAVDESS after the folds.
#   bash artifacts/reports/emodb/reproduce.sh EMODB
set -euo pipefail
data=${1:?give the folder of EMO-DB}
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
here=$(dirname "$0") place=$(mktemp -d)
table=$place/emodb.csv
python "$here/table.py" "$data" >"$table"
map=anger=angry,boredom=-,disgust=disgust,fear=fearful,happiness=happy,neutral=neutral,sadness=sad
for grid in whisper-frozen mn04-distilled; do
  samo evaluate "$grid/refit" --dataset table --data-root "$table" --label-map "$map" --json >"$table.json"
  python "$here/summarise.py" "$table.json" >"$here/$grid.json"
done
rm -r "$place"

#!/usr/bin/env bash
# Every number in table.md and table.csv: what each technique adds by itself to a narrow SmallCNN, three seeds of fold 0.
#   bash artifacts/reports/techniques/reproduce.sh RAVDESS
# About an hour on one core of a two-core Intel Xeon with AMX, bf16, other jobs on the other core.
set -euo pipefail
data=${1:?give the folder of RAVDESS}
here=$(dirname "$0")
export SAMO_ARTIFACTS=${SAMO_ARTIFACTS:-artifacts}
samo ablate techniques --name techniques --data-root "$data" --threads 1
cp "$SAMO_ARTIFACTS/grids/techniques/table.csv" "$here"
# No place of one machine.
sed "s#--data-root $data#--data-root RAVDESS#" "$SAMO_ARTIFACTS/grids/techniques/table.md" >"$here/table.md"

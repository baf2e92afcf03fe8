"""Write EMO-DB as a table that SAMO reads: path, label and speaker from the files' names.

python artifacts/reports/emodb/table.py EMODB > emodb.csv
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

# The letter behind the sentence: Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral (Burkhardt et al. 2005).
EMOTIONS = {
    "W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral",
}  # fmt: skip


def main() -> None:
    """One row a clip; a name like 03a01Fa is speaker 03, sentence a01, emotion F, take a."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("path", "label", "speaker"))
    for path in sorted(Path(sys.argv[1]).resolve().iterdir()):
        if path.suffix in (".wav", ".flac"):
            rows.writerow((path, EMOTIONS[path.stem[5]], path.stem[:2]))


if __name__ == "__main__":
    main()

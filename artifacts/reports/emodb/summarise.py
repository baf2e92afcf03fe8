"""The figures of a report on another corpus that are published, without places of this machine.

python artifacts/reports/emodb/summarise.py REPORT.json > RUN.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from samo.training.runtime import environment

KEPT = ("run", "dataset", "n", "labels", "metrics", "ci", "label_map", "per_class", "constant")


def main() -> None:
    """Print them as JSON."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    kept = {name: report[name] for name in KEPT if name in report}
    print(json.dumps({**kept, "environment": environment()}, indent=1))


if __name__ == "__main__":
    main()

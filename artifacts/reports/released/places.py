"""ONNX files that were exported before names stood in place of paths: what they say is written anew, the network stays.

python artifacts/reports/released/places.py FILE.onnx ...

Their cards, digests and sizes are renewed, in the `.export.json` beside them too.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import onnx

from samo.deploy.onnx_file import KEY, save_metadata
from samo.files import replacing, write_json
from samo.prediction.exported import ExportedModel
from samo.reporting.published import published_card


def renew(path: Path) -> None:
    """Rewrite a file's card, after a check that nothing else changes."""
    before = onnx.load(path)
    about = json.loads(next(prop.value for prop in before.metadata_props if prop.key == KEY))
    card = published_card(about["card"])
    with replacing(path) as made:
        for _ in range(2):  # the card names the size of the file it is in
            shutil.copy(path, made)
            save_metadata(made, {**about, "card": card})
            megabytes = made.stat().st_size / 1e6
            card = re.sub(r"^- Size: [\d.]+ MB, ", f"- Size: {megabytes:.2f} MB, ", card, flags=re.MULTILINE)
        ExportedModel.open(made)
        graphs = [model.graph.SerializeToString(deterministic=True) for model in (before, onnx.load(made))]
        if graphs[0] != graphs[1]:
            raise SystemExit(f"{path}: the network would not stay the same")
    beside = path.with_suffix(".export.json")
    facts = json.loads(beside.read_text(encoding="utf-8"))
    facts["size_mb"]["file"] = round(megabytes, 4)
    if not facts["quantised"]:
        facts["size_mb"]["float32"] = facts["size_mb"]["file"]
    facts["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(beside, facts)
    print(f"{path}: {facts['sha256']}")


for name in sys.argv[1:]:
    renew(Path(name))

"""Bulk answers of an exported file: bound to the file's bytes, and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
import numpy as np
import soundfile
from tiny_onnx import SR, write

from samo.deploy.bulk import bulk_predict
from samo.errors import ModelFileError, RunError, SettingsError
from samo.prediction.exported import load_exported

_CODE = """
import json, sys
from samo_cli.main import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "scipy", "sklearn", "pandas", "ray", "pyarrow"}
    print(json.dumps(sorted(heavy & set(sys.modules))))
"""


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(5):
        soundfile.write(folder / f"{number}.wav", np.full(SR, 0.1 * number) + 0.01 * np.sin(np.arange(SR)), SR)
    return [str(path) for path in sorted(folder.iterdir())]


def test_answers_of_a_file_are_bound_to_its_bytes(clips: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "voice.onnx")
    summary = bulk_predict(file, clips, tmp_path / "out", part_items=2)
    assert (summary.plan.name, summary.written, summary.all_rows) == ("voice.onnx", 3, 5)
    found = [json.loads(line) for path in sorted((tmp_path / "out").glob("part-*")) for line in path.open()]
    model = load_exported(file)
    assert [row["probabilities"] for row in found] == [
        pytest.approx(each.probabilities) for each in model.stream(clips)
    ]
    # One bit of the card is another model.
    write(tmp_path / "voice.onnx", card="another")
    with pytest.raises(RunError, match="begun with another model"):
        bulk_predict(file, clips, tmp_path / "out", part_items=2)
    with pytest.raises(SettingsError, match="given by its file"):
        bulk_predict(model, clips, tmp_path / "out")
    (tmp_path / "none.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError):
        bulk_predict(tmp_path / "none.onnx", clips, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_predict_output_of_a_file_needs_no_torch(clips: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "voice.onnx")
    words = ["predict", *clips, "--model", str(file), "-o", str(tmp_path / "out"), "--shard", "1/1"]
    ended = subprocess.run([sys.executable, "-c", _CODE, *words], capture_output=True, text=True, check=False)
    assert "wrote 1 part (5 rows, 0 errors)" in ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"

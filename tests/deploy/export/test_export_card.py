"""What a file and the card of its run say of the file, and what they do not say of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from tiny_exports import exported, parity, with_kept_answers
from torch import nn

import samo
from samo.deploy import file_formats
from samo.deploy.card import with_section
from samo.prediction.exported import ExportedModel
from samo.training.checkpoint import read_metadata


def test_a_file_brings_its_card_to_whoever_opens_it(before: Path, artifacts: Path) -> None:
    with_kept_answers(artifacts)
    for run in ("speech", "text"):
        card = samo.load(exported(before, run).path, threads=1).card
        assert card.startswith("# Model card: speech\n\nFirst lines.\n") == (run == "speech")
        assert f"## Exported file {run}.onnx\n" in card


OLD_CARD = """# Model card: speech

## Training settings

| name | value |
| :-- | :-- |
| weights | /home/me/my nets/mn04.pt |

## How to reproduce

```sh
samo train --data-root /home/me/ravdess --weights '/home/me/my nets/mn04.pt'
```
"""


def test_no_place_of_this_machine_leaves_with_a_file(before: Path, artifacts: Path, tmp_path: Path) -> None:
    run = with_kept_answers(artifacts)
    run.path("MODEL_CARD.md").write_text(OLD_CARD)
    config = run.path("config.json")
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "weights": "/home/me/my nets/mn04.pt"}))
    file = exported(before)
    card = ExportedModel.open(file.path).metadata.card
    assert "| weights | mn04.pt |" in card
    assert "samo train --data-root ravdess --weights mn04.pt" in card
    weights = exported(before, format="safetensors")
    about = json.loads(read_metadata(weights.path)["samo"])
    assert about["settings"]["weights"] == "mn04.pt"
    assert about["settings"]["data_root"] == Path(settings["data_root"]).name
    for place in (b"/home/me", str(before).encode(), str(tmp_path).encode(), str(Path.cwd()).encode()):
        for written in (file, weights):
            assert place not in written.path.read_bytes() + written.facts_path.read_bytes()
    # The run itself keeps whole paths: training goes on with them.
    assert json.loads(config.read_text())["weights"] == "/home/me/my nets/mn04.pt"


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_a_torch_program_does_not_say_where_its_source_lies(tmp_path: Path) -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(2, 1), nn.ReLU()), (torch.zeros(1, 2),), strict=False)
    torch.export.save(program, tmp_path / "before.pt2")
    file_formats._save_program(program, tmp_path / "after.pt2", {})
    with ZipFile(tmp_path / "before.pt2") as old, ZipFile(tmp_path / "after.pt2") as new:
        for opened, named in ((old, True), (new, False)):
            whole = b"".join(opened.read(name) for name in opened.namelist())
            assert (str(Path(torch.__file__).parent).encode() in whole) == named
    again = torch.export.load(tmp_path / "after.pt2").module()
    assert torch.equal(again(torch.ones(1, 2)), program.module()(torch.ones(1, 2)))


def test_the_section_of_a_card_is_replaced_and_others_stay() -> None:
    facts = {
        "file": "a_b.onnx", "format": "onnx", "opset": 18, "quantised": "int8", "pruned": 0.25, "machine": "a machine",
        "exact": parity().to_json(), "parity": parity(before=0.5, after=0.495).to_json(), "forced": [],
        "size_mb": {"run": 4.0, "file": 1.0}, "latency_ms": {"1": {"torch": 3.0, "int8": 1.0}},
    }  # fmt: skip
    card = with_section("# Card\n\n## Exported file other.onnx\n\n- kept\n", facts)
    assert with_section(card, {**facts, "size_mb": {"run": 4.0, "file": 2.0}}) == card.replace("1.00 MB", "2.00 MB")
    assert "## Exported file other.onnx\n\n- kept\n\n## Exported file a\\_b.onnx\n" in card
    assert "- onnx, int8, 25% of the channels pruned; opset 18" in card
    assert "macro-F1 0.500 before and 0.495 after, interval of the difference -0.010 to +0.010" in card
    assert "- Median time of a batch of 1: torch 3.0 ms, int8 1.0 ms (a machine)" in card

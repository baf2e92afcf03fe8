"""The notebooks: stripped, of this machine nothing in them, and each runs on clips that are made."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {
    "train": {"SAMO_EPOCHS": "1", "SAMO_FRACTION": "0.2"},
    "serve": {"SAMO_EPOCHS": "2", "SAMO_SPEAKERS": "6"},
}


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_both_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_a_run_is_kept(path: Path) -> None:
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells(path)] == [([], None)] * len(cells(path))
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    assert not re.search(r"""["'](?:/(?:home|work|root|tmp|content|Users)|[A-Z]:\\)""", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_name_it_imports_exists(path: Path) -> None:
    """Names of SAMO that are imported, and attributes of ``samo``."""
    found = []
    for cell in cells(path):
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("samo"):
                found += [(node.module, alias.name) for alias in node.names]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "samo":
                found.append(("samo", node.attr))
    assert len(found) >= 3
    assert [(module, name) for module, name in found if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_parameter_is_read_from_the_environment(path: Path) -> None:
    text = "".join("".join(cell["source"]) for cell in cells(path))
    assert {f'"{name}"' for name in SMALL[path.stem]} <= set(re.findall(r'"SAMO_\w+"', text))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name in ("SAMO_ARTIFACTS", "SAMO_DATA_ROOT", "SAMO_CORPUS", "SAMO_CLIPS"):
        monkeypatch.delenv(name, raising=False)
    # The first keeps pictures from being drawn.
    places = os.pathsep.join([str(ROOT / "tests" / "children"), str(ROOT), str(ROOT / "cli")])
    for name, value in {**SMALL[path.stem], "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    # Nothing of the kernel's own is written to the home of whoever runs the tests.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    done = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(
        str(output.get("text", "")) + "".join(map(str, output.get("data", {}).values())) for output in outputs
    )
    run = tmp_path / "artifacts" / "runs" / {"train": "notebook", "serve": "own"}[path.stem]
    assert (run / "report.html").is_file()
    if path.stem == "train":
        assert "95 % interval" in shown
        assert "text/html" in outputs[-1].data or "Prediction" in shown
    else:
        lines = (tmp_path / "answers.jsonl").read_text().splitlines()
        assert len(lines) == 40
        assert "own" in shown

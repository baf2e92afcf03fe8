"""A grid on a real Ray cluster, one node of which dies: every cell once, the table of the serial grid."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray_cluster import Nodes, needs_ray, nodes, wait_for
from safetensors.numpy import load_file
from tone_corpora import TINY, done, read_json, refused, table, table_rows

from samo.launch.store import Store, snapshots

GRID = """
seeds = [0, 1]
[base]
epochs = 12
patience = 0
[variants.baseline]
[variants.smooth]
label_smoothing = 0.3
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Nodes]:
    with nodes() as made:
        yield made


@pytest.fixture
def cluster(shared: Nodes) -> Nodes:
    """Two nodes of one CPU each; both tests kill one."""
    shared.grow_to(2)
    return shared


@pytest.fixture
def ablation(tmp_path: Path, artifacts: Path) -> list[object]:
    """``samo ablate`` of :data:`GRID`, with its data and settings."""
    (tmp_path / "g.toml").write_text(GRID)
    corpus = table(tmp_path / "table", table_rows())
    # A place relative to the working directory, which workers of a cluster do not start in.
    Path("clips").symlink_to(corpus.parent)
    settings = [word for word in TINY if word not in ("--epochs", "2")]
    return ["ablate", tmp_path / "g.toml", "--dataset", "table", "--data-root", "clips/clips.csv", *settings, "--json"]


@needs_ray
def test_a_grid_outlives_a_node_and_its_table_is_the_serial_one(
    ablation: list[object], artifacts: Path, cluster: Nodes
) -> None:
    serial = done(*ablation, "--workers", "1", "--name", "serial").json
    grid = artifacts / "grids" / "cluster"
    killed: list[str] = []
    killer = threading.Thread(target=_kill_a_node_in_mid_training, args=(cluster, grid, killed), daemon=True)
    killer.start()
    result = done(*ablation, "--ray", cluster.address, "--name", "cluster")
    killer.join()
    again = done(*ablation, "--ray", cluster.address, "--name", "cluster")
    assert result.json["rows"] == serial["rows"]
    assert "0 done before; 2 at once, on Ray" in result.err
    assert result.err.count("  done  ") == 4
    assert "raylet" not in result.err
    (victim,) = killed
    rows = read_json(artifacts / "grids" / "serial" / "grid.json")["cells"]
    assert victim in {row["name"] for row in rows}
    for row in rows:
        run, alone = (artifacts / "grids" / name / "runs" / row["name"] for name in ("cluster", "serial"))
        weights, expected = (load_file(folder / "best_model.safetensors") for folder in (run, alone))
        assert all(np.array_equal(weights[name], expected[name]) for name in expected)
        # One epoch at most was trained again, that in which the power went; its line may be lost, its files are not.
        epochs = [json.loads(line)["epoch"] for line in (run / "history.jsonl").read_text().splitlines()]
        assert epochs == list(range(1, 13))
        printed = (grid / "logs" / f"{row['name']}.log").read_text().count("val macro-F1")
        assert printed in ((11, 12, 13) if row["name"] == victim else (12,))
    assert "4 done before" in again.err
    assert again.json["rows"] == serial["rows"]


def _kill_a_node_in_mid_training(cluster: Nodes, grid: Path, killed: list[str]) -> None:
    found: list[Path] = []

    def training() -> bool:
        found[:] = [
            run for run in grid.glob("runs/*") if (run / "last.ckpt").exists() and not (run / "trained.json").exists()
        ]
        return bool(found)

    wait_for(training)
    cluster.kill_under(int((found[0] / ".lock").read_text()))
    assert not (found[0] / "trained.json").exists()
    killed.append(found[0].name)


@needs_ray
def test_machines_that_share_no_folder_keep_their_cells_at_a_store(
    ablation: list[object], artifacts: Path, tmp_path: Path, cluster: Nodes
) -> None:
    (tmp_path / "g.toml").write_text(GRID.partition("[variants.smooth]")[0])
    serial = done(*ablation, "--workers", "1", "--name", "serial").json
    grid, place = artifacts / "grids" / "cluster", tmp_path / "store"
    cluster_flags = ("--name", "cluster", "--store", f"file://{place}")
    killed: list[str] = []
    killer = threading.Thread(target=_kill_a_node_of_a_store, args=(cluster, place, grid, killed), daemon=True)
    killer.start()
    result = done(*ablation, "--ray", cluster.address, *cluster_flags)
    killer.join()
    epochs_printed = {log.stem: log.read_text().count("val macro-F1") for log in (grid / "logs").iterdir()}
    # A grid begun again where nothing is known of it: everything comes home, nothing is trained.
    shutil.rmtree(grid)
    listed = done(*ablation, "--ray", cluster.address, *cluster_flags, "--dry-run").json
    again = done(*ablation, "--ray", cluster.address, *cluster_flags)
    assert result.json["rows"] == serial["rows"]
    assert [row["state"] for row in listed["cells"]] == ["done"] * 2
    assert "2 done before" in again.err
    assert again.json["rows"] == serial["rows"]
    (victim,) = killed
    for run in sorted((grid / "runs").iterdir()):
        alone = artifacts / "grids" / "serial" / "runs" / run.name
        weights, expected = (load_file(folder / "best_model.safetensors") for folder in (run, alone))
        assert all(np.array_equal(weights[name], expected[name]) for name in expected)
        kept = [path for path in (place / "cluster" / "runs" / run.name).rglob("*") if path.is_file()]
        here = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
        assert len(kept) == len(here) + 1, "its files and their index; nothing is left of the lost attempt"
    # The lost machine took its log along; the other went on from the copy.
    assert sorted(epochs_printed) == ["baseline.seed0", "baseline.seed1"]
    assert {name: 0 < epochs_printed[name] < 12 for name in epochs_printed} == {
        name: name == victim for name in epochs_printed
    }
    line = refused(5, *ablation, "--ray", "127.0.0.1:1", *cluster_flags, "--lr", "0.5", "--name", "cluster")
    assert f"{victim}: lr was 0.001, is now 0.5" in line


def _kill_a_node_of_a_store(cluster: Nodes, place: Path, grid: Path, killed: list[str]) -> None:
    found: list[tuple[Path, int]] = []

    def training() -> bool:
        for stored in place.glob("cluster/runs/*"):
            begun = [copy for copy in snapshots(Store(f"file://{stored}")) if copy.progress[1:] > (0, 0)]
            for lock in Path(tempfile.gettempdir()).glob(f"samo-run-*/runs/{stored.name}/.lock"):
                process = int(lock.read_text() or 0)
                if begun and begun[0].progress[1] == 0 and Path(f"/proc/{process}").exists():
                    found.append((lock, process))
        return bool(found)

    wait_for(training)
    lock, process = found[0]
    name = lock.parent.name
    assert not (grid / "runs" / name).exists(), "nothing is written where the grid was started"
    cluster.kill_under(process)
    shutil.rmtree(lock.parents[2])  # a minute later the next cell on that machine would
    killed.append(name)


def test_a_store_needs_a_cluster(ablation: list[object]) -> None:
    assert "--store acts only together with --ray" in refused(2, *ablation, "--store", "file:///nowhere")
    assert "unknown protocol 's33'" in refused(2, *ablation, "--ray", "127.0.0.1:1", "--store", "s33://bucket")


@needs_ray
def test_clusters_that_are_not_there(ablation: list[Any], artifacts: Path) -> None:
    line = refused(9, *ablation, "--ray", "127.0.0.1:1")
    assert "--ray 127.0.0.1:1: no Ray cluster answers" in line
    assert "ray start --head" in line
    assert "write auto or HOST:PORT" in refused(2, *ablation, "--ray", "nonsense")
    assert not (artifacts / "grids" / "g" / "runs").exists()


@pytest.mark.parametrize("verb", [["crossval"], ["learning-curve"], ["ensemble", "--seeds", "0,1"]])
def test_other_grids_take_the_flags_too(verb: list[str], ablation: list[Any]) -> None:
    words = [*verb, *ablation[2:], "--epochs", "1"]
    assert "no Ray Client addresses" in refused(2, *words, "--ray", "ray://head:10001")
    assert "--store acts only together with --ray" in refused(2, *words, "--store", "file:///nowhere")
    assert "unknown protocol 's33'" in refused(2, *words, "--ray", "127.0.0.1:1", "--store", "s33://bucket")

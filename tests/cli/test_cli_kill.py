"""SIGKILL at any moment of a real training: going on ends with the bits of an undisturbed one."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_cli import Ended, Forks
from tone_corpora import TINY, refused

from samo.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

EPOCHS = 4
PLAIN = [*TINY, "--epochs", str(EPOCHS), "--patience", "0"]
# Everything at once that carries something from step to step or draws at random.
EVERYTHING = [
    *PLAIN,
    *("--ema-decay", "0.9", "--grad-accum", "2", "--mixup-alpha", "0.4", "--balanced-sampler", "--use-specaug"),
    *("--specaug-freq", "4", "--specaug-time", "4", "--time-shift", "0.05", "--gain", "6", "--noise"),
    *("--level", "as-is", "--dropout", "0.3"),
]


@dataclass(frozen=True)
class Whole:
    """A training that nothing disturbed."""

    forks: Forks
    argv: list[str]
    folder: Path
    ended: Ended

    def begin(self, root: Path, **how: Any) -> Ended:
        return self._samo(root, *self.argv, "--name", "run", **how)

    def resume(self, root: Path, **how: Any) -> Ended:
        return self._samo(root, "train", "--resume", "run", "--threads", "1", "--precision", "float32", **how)

    def _samo(self, root: Path, *words: object, **how: Any) -> Ended:
        watch = root / "artifacts"
        return self.forks.run(*words, "--artifacts", watch, cache=root / "cache", watch=watch, **how)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as running:
        yield running


def undisturbed(forks: Forks, root: Path, clips: Path, settings: list[str]) -> Whole:
    whole = Whole(forks, ["train", "--data-root", str(clips), *settings], root / "artifacts" / "runs" / "run", None)  # type: ignore[arg-type]
    ended = whole.begin(root)
    assert ended.status == 0, ended.err
    return Whole(forks, whole.argv, whole.folder, ended)


@pytest.fixture(scope="module")
def plain(forks: Forks, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return undisturbed(forks, tmp_path_factory.mktemp("plain"), clips, PLAIN)


@pytest.fixture(scope="module")
def everything(forks: Forks, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return undisturbed(forks, tmp_path_factory.mktemp("everything"), clips, EVERYTHING)


def same(one: Any, other: Any) -> bool:
    """Equal in every bit, through tables and lists; seconds are how long it took, not what came of it."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_like_undisturbed(folder: Path, whole: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in whole.iterdir()}, "nothing is missing and no half of a file is left"
    for name in ("best_model.safetensors", "fitted.safetensors", "trained.json", "split.json", "calibration.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert same(load_checkpoint(folder / "last.ckpt"), load_checkpoint(whole / "last.ckpt"))
    assert same(rows(folder), rows(whole))


def stage(folder: Path) -> str:
    """How far a killed training came; whatever it wrote is whole."""
    if not (folder / "config.json").exists():
        return "before the run"
    json.loads((folder / "config.json").read_text())
    if (folder / "trained.json").exists():
        return "finished"
    if not (folder / "last.ckpt").exists():
        return "before the first checkpoint"
    epochs = load_checkpoint(folder / "last.ckpt")["epoch"]
    assert epochs - 1 <= len(rows(folder) if (folder / "history.jsonl").exists() else []) <= epochs
    return "after the last epoch" if epochs == EPOCHS else "in the middle"


def killed_and_resumed(whole: Whole, root: Path, moments: list[dict[str, Any]]) -> list[str]:
    """Kill a training at each moment of its lives, then let it end; returns how far it had come at each kill."""
    root.mkdir()
    folder = root / "artifacts" / "runs" / "run"
    reached: list[str] = []
    for moment in [*moments, {}]:
        begun = (folder / "config.json").exists()
        if (folder / "trained.json").exists():
            break
        ended = whole.resume(root, **moment) if begun else whole.begin(root, **moment)
        if ended.status == 0:
            break
        assert (ended.status, bool(moment)) == (-signal.SIGKILL, True), ended.err
        reached.append(stage(folder))
    assert_like_undisturbed(folder, whole.folder)
    return reached


def moments(whole: Whole, count: int, dice: random.Random) -> list[dict[str, Any]]:
    """Half of them by what is done to the run's files, half by the clock; spread over the whole life, then mixed.

    The first is in the first events, so that one kill at least falls before ``config.json``.
    """
    found: list[dict[str, Any]] = []
    half = count // 2
    for k in range(half):
        share = (k + dice.random()) / half
        found += [{"at": int(share * len(whole.ended.events))}, {"after": share * whole.ended.seconds}]
    first, *others = found
    dice.shuffle(others)
    return [first, *others]


@pytest.mark.parametrize(("kind", "kills"), [("everything", 20), ("plain", 6)])
def test_killed_at_random_moments(kind: str, kills: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole: Whole = request.getfixturevalue(kind)
    dice = random.Random(kind)
    planned = moments(whole, kills, dice)
    reached: list[str] = []
    chain = 0
    while len(reached) < kills:
        # Some trainings are killed once, some twice, some three times; a life may be over before its moment comes.
        several = [planned.pop(0) for _ in range(min(len(planned), dice.choice([1, 2, 3])))]
        later = [{"at": dice.randrange(len(whole.ended.events))}]
        reached += killed_and_resumed(whole, tmp_path / str(chain), several or later)
        chain += 1
    assert {"before the run", "in the middle"} <= set(reached), reached


# The temporary file is made, written, read to be synced, opened to all and renamed; nothing is left to remove.
WRITING = ["tempfile.mkstemp", "open", "open", "open", "os.chmod", "os.rename", "os.remove"]


@pytest.mark.parametrize("step", [2, 3, 5], ids=["empty", "written", "before the rename"])
def test_killed_inside_the_write_of_a_checkpoint(step: int, plain: Whole, tmp_path: Path) -> None:
    """In the third epoch: what the second left is whole, and gone on with."""
    of_checkpoints = [
        number for number, (_, name) in enumerate(plain.ended.events) if re.fullmatch(r"\.?last\.ckpt(\..*)?", name)
    ]
    third = of_checkpoints[2 * len(WRITING) : 3 * len(WRITING)]
    assert [plain.ended.events[number][0] for number in third] == WRITING
    folder = tmp_path / "artifacts" / "runs" / "run"
    assert plain.begin(tmp_path, at=third[step]).status == -signal.SIGKILL
    assert load_checkpoint(folder / "last.ckpt")["epoch"] == 2
    assert len(list(folder.glob(".last.ckpt.*"))) == 1
    assert plain.resume(tmp_path).status == 0
    assert_like_undisturbed(folder, plain.folder)


def test_killed_with_half_a_checkpoint_on_the_disk(plain: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "runs" / "run"
    assert plain.begin(tmp_path, save=2).status == -signal.SIGKILL
    (half,) = folder.glob(".last.ckpt.*")
    assert 0 < half.stat().st_size < (folder / "last.ckpt").stat().st_size
    assert load_checkpoint(folder / "last.ckpt")["epoch"] == 2
    assert plain.resume(tmp_path).status == 0
    assert not half.exists()
    assert_like_undisturbed(folder, plain.folder)


def test_killed_between_the_last_checkpoint_and_its_history(plain: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "runs" / "run"
    events = enumerate(plain.ended.events)
    last = max(number for number, (event, name) in events if event == "os.rename" and ".history.jsonl." in name)
    assert plain.begin(tmp_path, at=last).status == -signal.SIGKILL
    assert len(rows(folder)) == EPOCHS - 1
    assert load_checkpoint(folder / "last.ckpt")["epoch"] == EPOCHS
    assert plain.resume(tmp_path).status == 0
    assert_like_undisturbed(folder, plain.folder)


def test_killed_before_the_run_was_one(plain: Whole, tmp_path: Path) -> None:
    """There is nothing to resume; typing the same command again is all that is needed."""
    folder = tmp_path / "artifacts" / "runs" / "run"
    names = [name for _, name in plain.ended.events]
    at = next(number for number, name in enumerate(names) if name.startswith(".config.json."))
    assert plain.begin(tmp_path, at=at).status == -signal.SIGKILL
    assert (folder / "environment.json").exists()
    assert "there is no run 'run'" in refused(5, "train", "--resume", "run", "--artifacts", tmp_path / "artifacts")
    assert plain.begin(tmp_path).status == 0
    assert_like_undisturbed(folder, plain.folder)


def test_going_on_with_other_settings_shows_the_difference(plain: Whole, tmp_path: Path) -> None:
    assert plain.begin(tmp_path, save=1).status == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in (tmp_path / "artifacts" / "runs" / "run").iterdir()}
    line = refused(
        5, "train", "--resume", "run", "--artifacts", tmp_path / "artifacts", "--lr", "0.5", "--ema-decay", "0.9"
    )
    assert "changed: --lr 0.001 is now 0.5, --ema-decay 0.0 is now 0.9" in line
    assert {path.name: path.read_bytes() for path in (tmp_path / "artifacts" / "runs" / "run").iterdir()} == before

"""Answers to any number of inputs as a folder of files: resumable, on one machine, on several, on a Ray cluster.

from samo.deploy.bulk import bulk_predict

print(bulk_predict("my-run", sorted(folder.glob("*.wav")), "answers"))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from samo.deploy.part_files import BulkModel, counts_of, write_part
from samo.deploy.parts import (
    FORMATS,
    PART_ITEMS,
    PLAN_FILE,
    BulkPlan,
    is_file,
    listing_digest,
    open_folder,
    read_plan,
    shard_of,
)
from samo.errors import DiskFull, EnvironmentProblem, Interrupted, SettingsError, counted, nearest
from samo.prediction import ModelPredictor
from samo.runs.run import Run

__all__ = ["BulkSummary", "bulk_predict"]

OnPart = Callable[[int, int], None]
"""Called with (parts done, parts to do) after each part."""


@dataclass(frozen=True)
class BulkSummary:
    """What a call of :func:`bulk_predict` did, and what its folder holds now.

    Attributes:
        folder: of the parts.
        plan: what they are made of.
        shard: number and count of shards.
        written: parts that this call wrote.
        skipped: parts of this shard that were there before.
        rows: in the parts that this call wrote.
        errors: how many of them say why an input could not be read.
        present: parts in the folder, of all shards.
        all_rows: rows of the folder once every part is there, else None.
        all_errors: how many of them are errors.
    """

    folder: Path
    plan: BulkPlan
    shard: tuple[int, int]
    written: int
    skipped: int
    rows: int
    errors: int
    present: int
    all_rows: int | None = None
    all_errors: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the parts of all shards are there."""
        return self.present == self.plan.n_parts

    @property
    def how_to_join(self) -> str:
        """The command or the Python that reads all parts as one."""
        if self.plan.format == "parquet":
            return f'pandas.read_parquet("{self.folder}")'
        return f"cat {self.folder}/part-*.jsonl > answers.jsonl"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": 1,
            "folder": str(self.folder),
            "format": self.plan.format,
            "model": self.plan.name,
            "shard": f"{self.shard[0]}/{self.shard[1]}",
            "written": self.written,
            "skipped": self.skipped,
            "rows": self.rows,
            "errors": self.errors,
            "parts": self.plan.n_parts,
            "present": self.present,
            "complete": self.is_complete,
            "all_rows": self.all_rows,
            "all_errors": self.all_errors,
        }

    def __str__(self) -> str:
        """How much was done, how much there is, and how to read it, in one line."""
        done = f"wrote {counted(self.written, 'part')} ({_with_errors(self.rows, self.errors)})"
        before = f", {self.skipped} were there before" if self.skipped else ""
        if self.all_rows is None or self.all_errors is None:
            there = f"{self.present} of {self.plan.n_parts} parts are in {self.folder}"
            return f"{done}{before}; {there}, the other shards are not done"
        whole = _with_errors(self.all_rows, self.all_errors)
        return f"{done}{before}; {self.folder} is complete: {whole}; read them with {self.how_to_join}"


def bulk_predict(
    model: str | Path | Run | ModelPredictor,
    inputs: Iterable[str | Path],
    folder: str | Path,
    *,
    format: str = "jsonl",
    shard: str = "",
    part_items: int = PART_ITEMS,
    ray: str = "",
    artifacts: str | Path = "",
    device: str = "auto",
    precision: str = "float32",
    threads: int = 0,
    on_part: OnPart | None = None,
) -> BulkSummary:
    """Answer every input once, in parts that are files of a folder; what is there already is not done again.

    Inputs that cannot be read are rows that say why. The memory used grows with the listing of the inputs alone.

    Args:
        model: as :func:`samo.load` takes it, or what it returns.
        inputs: paths of recordings, or texts.
        folder: where the parts go; a new one, or one of an earlier call with the same model and inputs.
        format: ``jsonl``: the form of JSON everywhere, with the place in the listing as ``item``. ``parquet``: one flat
            column a label, as :meth:`samo.prediction.PredictionList.rows`, without time lines.
        shard: ``I/N`` takes every N-th part, beginning with the I-th; shards may run at once on several machines.
        part_items: inputs in a part.
        ray: address of a Ray cluster, ``auto`` or ``HOST:PORT``; empty for this process. Its machines see the
            working directory, the model, the inputs and the folder under the same paths.
        artifacts: folder of all outputs, for a run given by name.
        device: as in :func:`samo.load`.
        precision: as in :func:`samo.load`.
        threads: CPU threads; 0 chooses.
        on_part: hears of every part that was written.

    Raises:
        SettingsError: an unknown format, a wrong shard, no input.
        RunError: the folder holds answers of another model, device or precision, or to other inputs; or the
            model changed on the way.
        EnvironmentProblem: Parquet without pyarrow; no such cluster.
        DiskFull: no space is left; finished parts stay, and the same call goes on.
        Interrupted: by Ctrl-C; finished parts stay, and the same call goes on.
    """
    _require_format(format)
    number, shards = shard_of(shard)
    if ray and shards > 1:
        raise SettingsError("`ray` and `shard` exclude each other", hint="Ray divides the parts by itself")
    if part_items < 1:
        raise SettingsError(f"`part_items={part_items}`: at least 1")
    items = [os.fspath(item) for item in inputs]
    if not items:
        raise SettingsError("nothing to predict")
    if ray:
        device = _device_of_cluster(Path(folder), ray, device, precision)
    answering = BulkModel.of(model, artifacts, device=device, precision=precision, threads=threads)
    listing = listing_digest(items, are_paths=answering.modality == "audio")
    plan = BulkPlan(answering.name, answering.digest, listing, len(items), part_items, format, answering.computed)
    target = Path(folder)
    with _full_disk_of(target):
        open_folder(target, plan)
    own = plan.shard(number, shards)
    todo = [part for part in own if not plan.is_there(target, part)]
    written: dict[int, tuple[int, int]] = {}
    try:
        with _full_disk_of(target):
            for part, counts in _answered(answering, plan, items, target, todo, ray):
                written[part] = counts
                if on_part:
                    on_part(len(written), len(todo))
    except KeyboardInterrupt:
        raise Interrupted(
            f"after {len(own) - len(todo) + len(written)} of {len(own)} parts", hint="the same command again goes on"
        ) from None
    return _summary(plan, target, (number, shards), len(own), written)


def _device_of_cluster(folder: Path, address: str, device: str, precision: str) -> str:
    """One kind of device for all machines of a cluster: that of the folder where it was begun, else GPUs if any.

    Raises:
        SettingsError: a precision that each machine would choose for itself.
    """
    if precision == "auto":
        raise SettingsError(
            "`precision=auto` may be another on each machine of a cluster", hint="name one, such as `precision=float32`"
        )
    if device != "auto":
        return device
    if is_file(folder / PLAN_FILE) and (begun := read_plan(folder / PLAN_FILE).computed):
        return begun.partition(",")[0]
    from samo.launch.ray import ray_cluster

    with ray_cluster(address) as (_, machines):
        return "cuda" if any(machine.gpus for machine in machines) else "cpu"


@contextmanager
def _full_disk_of(folder: Path) -> Iterator[None]:
    """Of a full disk say what helps here: it is not the artifacts that are written."""
    try:
        yield
    except DiskFull as error:
        if str(folder) in error.message:
            error.hint = "free some space, the same command again goes on; or give a folder on another disk"
        raise


def _answered(
    model: BulkModel, plan: BulkPlan, items: Sequence[str], folder: Path, todo: Sequence[int], ray: str
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Write the parts that are not there; yields each with its rows and errors."""
    if ray and todo:
        from samo.deploy.bulk_ray import answered_on_ray

        yield from answered_on_ray(model, plan, items, folder, todo, ray)
        return
    for part in todo:
        rows = plan.rows_of(part)
        yield part, write_part(model, plan, part, items[rows.start : rows.stop], folder)


def _summary(
    plan: BulkPlan, folder: Path, shard: tuple[int, int], n_own: int, written: Mapping[int, tuple[int, int]]
) -> BulkSummary:
    there = [part for part in range(plan.n_parts) if plan.is_there(folder, part)]
    rows, errors = (sum(counts[k] for counts in written.values()) for k in range(2))
    done = (folder, plan, shard, len(written), n_own - len(written), rows, errors, len(there))
    if len(there) < plan.n_parts:
        return BulkSummary(*done)
    counts = [written.get(part) or counts_of(plan, folder, part) for part in there]
    return BulkSummary(*done, sum(rows for rows, _ in counts), sum(errors for _, errors in counts))


def _require_format(name: str) -> None:
    if name not in FORMATS:
        raise SettingsError(f"unknown format '{name}'", hint=f"{nearest(name, FORMATS)}valid: {', '.join(FORMATS)}")
    if name == "parquet" and find_spec("pyarrow") is None:
        raise EnvironmentProblem(
            "`format=parquet` needs pyarrow, which is not installed", hint='pip install "samo-emotion[bulk]"'
        )


def _with_errors(rows: int, errors: int) -> str:
    return f"{counted(rows, 'row')}, {counted(errors, 'error')}"

"""Bulk answers on a Ray cluster: Ray Data hands parts to actors, each of which holds the model.

What an actor does is :func:`samo.deploy.part_files.write_part`, as everywhere. Where its process or machine is lost Ray
starts another one and gives it the part again, which leaves no half of a file and writes the same rows. Ray Data needs
pyarrow.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.deploy.part_files import BulkModel, write_part
from samo.deploy.parts import BulkPlan
from samo.errors import EnvironmentProblem, RunError, SamoError
from samo.launch.ray import ray_cluster, share_of_cluster, worker_environment

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PartActor", "answered_on_ray"]

# How often a part is begun again when its process or its machine was lost.
RETRIES = 3


def answered_on_ray(
    model: BulkModel, plan: BulkPlan, items: Sequence[str], folder: Path, todo: Sequence[int], address: str
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Write parts on a cluster; yields each with its rows and errors, as it is done.

    Raises:
        EnvironmentProblem: Ray or pyarrow is not installed, no cluster answers, or a part's process was lost too often.
        SettingsError: no machine of the cluster can take a part.
        RunError: a machine does not see the folder, or a part fails.
    """
    if find_spec("pyarrow") is None:
        raise EnvironmentProblem("`ray` needs pyarrow here", hint='pip install "samo-emotion[bulk]"')
    # Else Ray's core writes into the command's output how actors are kept.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with ray_cluster(address) as (ray, machines):
        how = model.how
        at_once, threads, gpus = share_of_cluster(machines, len(todo), 0, how["threads"], how["device"])
        data = _ray_data()
        left = frozenset(half.name for half in folder.glob(".part-*"))
        rows = [{"part": part, "items": json.dumps(_items_of(plan, items, part))} for part in todo]
        answers = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PartActor,
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(size=at_once, max_tasks_in_flight_per_actor=1),
            fn_constructor_args=(model.with_threads(threads), plan, str(folder.absolute()), os.getcwd(), left),
            num_cpus=threads,
            num_gpus=gpus,
            runtime_env={"env_vars": worker_environment(threads)},
        )
        try:
            for row in answers.iter_rows():
                if row["failed"]:
                    raise RunError(str(row["failed"]), hint="finished parts stay, the same command again goes on")
                yield int(row["part"]), (int(row["rows"]), int(row["errors"]))
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise EnvironmentProblem(
                f"Ray: {lines[0] if lines else type(error).__name__}",
                hint="finished parts stay, the same command again goes on",
            ) from error


class PartActor:
    """Writes parts in a process of the cluster; the model is loaded with the first."""

    def __init__(self, model: BulkModel, plan: BulkPlan, folder: str, working: str, left: frozenset[str]) -> None:
        """Know where.

        Args:
            model: what answers.
            plan: of the parts.
            folder: where they go, absolute.
            working: the folder from which the inputs' relative paths count.
            left: halves of parts that lay there before.
        """
        self.model, self.plan, self.folder, self.working, self.left = model, plan, Path(folder), working, left

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """One part and the items in it as JSON; gives its rows and errors, or what went wrong in one line."""
        part = int(batch["part"][0])
        rows = errors = 0
        failed = self._unseen() or self._lost(part)
        if not failed:
            try:
                os.chdir(self.working)
                rows, errors = write_part(self.model, self.plan, part, _from_json(batch["items"][0]), self.folder)
            except SamoError as error:
                failed = f"part {part}: {error.message}"
            except Exception as error:
                failed = f"part {part}: unexpected {type(error).__name__}: {' '.join(str(error).split())}"
        return {"part": [part], "rows": [rows], "errors": [errors], "failed": [failed]}

    def _unseen(self) -> str:
        for place in (self.working, str(self.folder), self.model.source):
            if not Path(place).exists():
                here = socket.gethostname()
                return f"machine {here} does not see {place}: `ray` needs folders that all machines share"
        return ""

    def _lost(self, part: int) -> str:
        """Ray begins without end what a process dies of, such as too little memory; each such process leaves a half."""
        halves = [path for path in self.folder.glob(f".{self.plan.file_of(part)}.*") if path.name not in self.left]
        return f"part {part}: its process was lost {len(halves)} times" if len(halves) > RETRIES else ""


def _items_of(plan: BulkPlan, items: Sequence[str], part: int) -> list[str]:
    rows = plan.rows_of(part)
    return list(items[rows.start : rows.stop])


def _from_json(text: Any) -> list[str]:
    from samo.files import parse_json

    found: list[str] = parse_json(str(text))
    return found


def _ray_data() -> Any:
    """The module ``ray.data``, kept from printing into the command's output."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A large model on a large part may be silent for longer than Ray Data would wait.
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data

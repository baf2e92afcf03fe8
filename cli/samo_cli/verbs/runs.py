"""``samo runs [show | delete]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from samo.errors import SettingsError, counted, plural
from samo.modalities import released_files
from samo_cli.flags import in_artifacts
from samo_cli.help import Verb
from samo_cli.options import Artifacts, Json

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def runs(
    context: typer.Context,
    sort: Annotated[
        str,
        typer.Option(
            metavar="date|name|dataset|epochs|val|test", help="The order: the oldest, or the highest score, first."
        ),
    ] = "date",
    grids: Annotated[bool, typer.Option("--grids", help="The cells of grids too, as GRID/CELL.")] = False,
    artifacts: Artifacts = "",
    json: Json = False,
) -> None:
    """List the runs trained so far, with their scores on other corpora; show or delete one."""
    if context.invoked_subcommand:
        return
    from samo.runs.artifacts import artifacts_root
    from samo.runs.listing import list_rows
    from samo_cli.render import note, print_json, show_table

    root = artifacts_root(artifacts)
    rows = list_rows(root, sort=sort, cells=grids)
    if json:
        print_json({"schema": 1, "runs": rows})
        return
    if not rows:
        answering = " and ".join(released_files())
        note(f"no run in {root} yet; train one: samo train" + (f"; {answering} answer without" if answering else ""))
        return
    heads = ["run", "dataset", "status", "epochs", "val macro-F1", "test macro-F1", "test opened"]
    names = ["run", "dataset", "status", "epochs", "val_macro_f1", "test_macro_f1", "test_openings"]
    numbers = heads[3:]
    for name, head in (("corpora", "other corpora"), ("code", "code")):
        if any(row[name] for row in rows):
            heads, names = [*heads, head], [*names, name]
    show_table(heads, [[_cell(row[name]) for name in names] for row in rows], numbers=numbers, whole=heads[:1])
    if sum(row["test_macro_f1"] is not None for row in rows) > 1:
        note("choose by val macro-F1: a run chosen by its test macro-F1 owes a part of it to chance")


@app.command("show", cls=Verb, short_help="Show what is known of a run.")
def show(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Name, GRID/CELL or folder; the newest when left out.")
    ] = "",
    artifacts: Artifacts = "",
    json: Json = False,
) -> None:
    """Show what is known of a run: its reports, also on other corpora, its command and its settings."""
    from samo.runs.artifacts import find_run
    from samo.runs.listing import describe_run
    from samo_cli.render import note, out, print_json, show_table

    found = find_run(_root(context, artifacts), run)
    facts = describe_run(found)
    if json or _above(context, "json"):
        print_json({"schema": 1, **facts})
        return
    size = f"{facts['bytes'] / 1e6:.1f} MB"
    about = [("status", facts["status"]), ("epochs", facts["epochs"]), ("validation macro-F1", facts["val_macro_f1"]),
             ("test part opened", facts["test_openings"]), ("began", facts["began"]), ("command", facts["command"]),
             ("folder", facts["folder"]), ("size", size)]  # fmt: skip
    show_table(("run", facts["run"]), [(name, _cell(value)) for name, value in about], whole=("run",))
    if facts["reports"]:
        out.print()
        rows = [
            (name, str(one["n"]), f"{one['macro_f1']:.3f}", _ends(one["interval"]), one["page"])
            for name, one in facts["reports"].items()
        ]
        show_table(("report on", "items", "macro-F1", "interval", "page"), rows, numbers=("items", "macro-F1"))
    elif "scores" in facts:  # nothing is left to evaluate it on
        for line in facts["scores"]:
            note(line)
    elif facts["settings"].get("split") != "whole":
        command = in_artifacts(f"samo evaluate {found.full_name}", artifacts or _above(context, "artifacts") or "")
        note(f"no report yet: {command}")
    out.print()
    show_table(("setting", "value"), [(name, _cell(value)) for name, value in facts["settings"].items()])


@app.command("delete", cls=Verb, short_help="Delete runs; asks before.")
def delete(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Names, GRID/CELL or folders.", show_default=False)
    ] = None,
    without_model: Annotated[
        bool, typer.Option("--without-model", help="All runs that were stopped before an epoch was finished.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    artifacts: Artifacts = "",
    json: Json = False,
) -> None:
    """Delete runs with their models, reports and pictures; asks before."""
    from samo.runs.artifacts import find_run, list_runs
    from samo.runs.listing import delete_run
    from samo_cli.render import err, note, print_json

    if bool(names) == without_model:
        raise SettingsError("name the RUNs to delete, or say --without-model")
    root = _root(context, artifacts)
    if names:
        found = list({run.folder: run for run in (find_run(root, name) for name in names)}.values())
    else:
        found = [run for run in list_runs(root) if not run.has_model and not run.is_busy()]
    listed = ", ".join(run.name for run in found)
    if found and not yes:
        if not sys.stdin.isatty():
            raise SettingsError(f"this deletes {listed}", hint="say --yes where nobody can be asked")
        err.print(f"{counted(len(found), 'run')}: {listed}", markup=False, soft_wrap=True)
        if not typer.confirm(f"delete {plural('it', len(found), 'them')}?", err=True):
            found = []
    restored = [run.name for run in found if delete_run(run)]
    if json or _above(context, "json"):
        print_json({"schema": 1, "deleted": [run.name for run in found]})
    else:
        note(f"deleted: {', '.join(run.name for run in found)}" if found else "nothing was deleted")
    if restored:
        note(f"back in place, as what was to replace it had no model: {', '.join(restored)}")


def _above(context: typer.Context, name: str) -> Any:
    """What was typed before the command's word: ``samo runs --json show``."""
    return context.parent.params.get(name) if context.parent else None


def _root(context: typer.Context, artifacts: str) -> Path:
    from samo.runs.artifacts import artifacts_root

    return artifacts_root(artifacts or _above(context, "artifacts") or "")


def _ends(interval: list[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(each)}" for name, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else f"{value:.3f}" if isinstance(value, float) else str(value)

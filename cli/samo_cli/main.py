"""Entry point: finds the verb, imports only that one, turns errors into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer
from typer.exceptions import TyperException

from samo_core import __version__
from samo_core.errors import SamoError

__all__ = ["VERBS", "build_app", "main"]

# verb: (module:function, one line for `samo --help`)
VERBS: dict[str, tuple[str, str]] = {
    "train": ("samo_cli.train:train", "Train a model and keep the best epoch by validation macro-F1."),
    "evaluate": ("samo_cli.evaluate:evaluate", "Judge a run on its held-out split, or on another corpus."),
    "predict": ("samo_cli.predict:predict", "Name the emotion of clips, folders and long recordings."),
    "data": ("samo_cli.data:app", "List, download and inspect data sets."),
    "presets": ("samo_cli.presets:presets", "List the recipes for `samo train --preset`."),
    "runs": ("samo_cli.runs:runs", "List the runs trained so far."),
    "doctor": ("samo_cli.doctor:doctor", "Say what machine, precision, threads and versions SAMO sees."),
}


def build_app(verb: str | None) -> typer.Typer:
    """The command line with ``verb`` (None: every verb) really imported; the others are only named."""
    app = typer.Typer(
        name="samo",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Emotion recognition from speech and text whose numbers you can believe.",
        epilog="Start with: samo train --modality audio, then samo evaluate. Errors show a traceback with --debug.",
    )
    app.callback()(_top)
    for name, (target, summary) in VERBS.items():
        implementation = _load(target) if verb in (None, name) else _named_only
        if isinstance(implementation, typer.Typer):
            app.add_typer(implementation, name=name, help=summary)
        else:
            app.command(name, short_help=summary, no_args_is_help=False)(implementation)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with the status of :mod:`samo_core.errors`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("SAMO_DEBUG"))
    arguments = [argument for argument in arguments if argument != "--debug"]
    words = [argument for argument in arguments if not argument.startswith("-")]
    completing = any(name.startswith("_SAMO_COMPLETE") for name in os.environ)
    verb = None if completing else (words[0] if words else "")
    try:
        status = build_app(verb)(args=arguments, prog_name="samo", standalone_mode=False)
    except SamoError as error:
        if debug:
            raise
        status = _complain(error.message, error.hint, error.exit_status)
    except TyperException as error:
        if debug:
            raise
        status = _usage(error)
    except typer.Abort:
        status = 130
    except KeyboardInterrupt:
        status = _complain("stopped", "", 130)
    except BrokenPipeError:
        # The reader (head, less) went away; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        status = _complain(f"unexpected {kind}: {error}", "run the same command with --debug and report it", 70)
    sys.exit(status if isinstance(status, int) else 0)


def _top(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
) -> None:
    if version:
        typer.echo(f"samo {__version__}")
        raise typer.Exit


def _named_only() -> None:
    """Stands in for a verb that this call does not use, so that its imports cost nothing."""


def _load(target: str) -> Callable[..., Any] | typer.Typer:
    module, _, name = target.partition(":")
    found: Callable[..., Any] | typer.Typer = getattr(import_module(module), name)
    return found


def _usage(error: TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return 0
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return _complain(message.rstrip("."), "--help lists what is valid", getattr(error, "exit_code", 2))


def _complain(message: str, hint: str, status: int) -> int:
    line = f"error: {' '.join(message.split())}" + (f" (hint: {hint})" if hint else "")
    print(line, file=sys.stderr)
    return status

"""Entry point: finds the verb, imports only that one, turns errors into one line and an exit status."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import typer
import typer.main
from typer.exceptions import TyperException

from samo import __version__
from samo.errors import DiskFull, EnvironmentProblem, Interrupted, SamoError, SettingsError
from samo.lazy import load_object, missing_extra
from samo.printable import printable
from samo_cli.flags import as_flags
from samo_cli.help import Verb
from samo_cli.importing import announced_imports

__all__ = ["VERBS", "build_app", "main"]

# verb: (module:function, one line for `samo --help`)
VERBS: dict[str, tuple[str, str]] = {
    "train": ("samo_cli.verbs.train:train", "Train a model and keep the best epoch by validation macro-F1."),
    "evaluate": ("samo_cli.verbs.evaluate:evaluate", "Evaluate a run on its held-out split, or on another corpus."),
    "compare": (
        "samo_cli.verbs.compare:compare",
        "Say which of several evaluated runs is better, and whether it is luck.",
    ),
    "predict": ("samo_cli.verbs.predict:predict", "Name the emotion of clips, long recordings and texts."),
    "export": (
        "samo_cli.verbs.export:export",
        "Write a run as one file that answers alone, and check that it answers as the run.",
    ),
    "package": ("samo_cli.verbs.package:package", "Write a model as a folder that runs elsewhere, without torch."),
    "serve": ("samo_cli.verbs.serve:serve", "Answer over HTTP, with a page for the browser."),
    "stream": ("samo_cli.verbs.stream:stream", "Name the emotion of what the microphone hears, while it hears it."),
    "drift": ("samo_cli.verbs.drift:drift", "Say whether a model is used on what it was validated on."),
    "ablate": ("samo_cli.verbs.ablate:ablate", "Run a grid of trainings and say which differences are real."),
    "tune": ("samo_cli.verbs.tune:tune", "Search for good settings by validation macro-F1."),
    "crossval": (
        "samo_cli.verbs.crossval:crossval",
        "Train on every fold and evaluate all out-of-fold predictions as one.",
    ),
    "learning-curve": ("samo_cli.verbs.learning_curve:learning_curve", "Say whether more training data would help."),
    "ensemble": (
        "samo_cli.verbs.ensemble:ensemble",
        "Let several runs answer as one, and say whether that gains anything.",
    ),
    "robustness": ("samo_cli.verbs.robustness:robustness", "Rewrite the test texts and say what macro-F1 that costs."),
    "pseudo-label": ("samo_cli.verbs.pseudo_label:pseudo_label", "Label texts with a run and keep what it is sure of."),
    "zero-shot": ("samo_cli.verbs.zero_shot:zero_shot", "Label texts with labels no model was trained on."),
    "data": ("samo_cli.verbs.data:app", "List, download and inspect data sets."),
    "presets": ("samo_cli.verbs.presets:presets", "List the recipes for `samo train --preset`."),
    "runs": ("samo_cli.verbs.runs:app", "List, show and delete the runs trained so far."),
    "doctor": ("samo_cli.verbs.doctor:doctor", "Say what machine, precision, threads and versions SAMO sees."),
}


def build_app(verb: str | None) -> typer.Typer:
    """The command line with ``verb`` (None: every verb) really imported; the others are only named."""
    app = typer.Typer(
        name="samo",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help="Emotion recognition from speech and text whose numbers you can believe.",
        epilog="Start with `samo train`, then `samo evaluate`.",
    )
    app.callback()(_top)
    for name, (target, summary) in VERBS.items():
        implementation = load_object(target) if verb in (None, name) else _named_only
        if isinstance(implementation, typer.Typer):
            app.add_typer(implementation, name=name, help=summary)
        else:
            app.command(name, cls=Verb, short_help=summary)(implementation)
    return app


@cache
def _command(verb: str | None, implementation: object) -> Any:
    """:func:`build_app` as typer parses with it; made once for whoever calls :func:`main` many times."""
    return typer.main.get_command(build_app(verb))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with the status of :mod:`samo.errors`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and not sys.warnoptions:
        # Libraries warn developers; what a user should know comes as an error or a note.
        warnings.simplefilter("ignore")
    debug = "--debug" in arguments or bool(os.environ.get("SAMO_DEBUG"))
    arguments = [argument for argument in arguments if argument != "--debug"]
    words = [argument for argument in _without_trust(arguments)[0] if not argument.startswith("-")]
    completing = any(name.startswith("_SAMO_COMPLETE") for name in os.environ)
    verb = None if completing else (words[0] if words else "")
    if hasattr(sys.stdout, "reconfigure"):
        # A file name that is not UTF-8 is printed escaped rather than not at all.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _notes_from_libraries(), announced_imports():
            command = _command(verb, load_object(VERBS[verb][0])) if verb in VERBS else _command(verb, None)
            rest, code = _without_trust(arguments)
            if not all(code):
                raise SettingsError("--trust-code needs a name", hint="for example --trust-code my_net:tiny")
            if code:
                from samo.plugins import trust

                trust(*code)
            status = command(
                args=rest,
                prog_name="samo",
                standalone_mode=False,
                obj={"command": shlex.join(["samo", *arguments])},
            )
            # A full disk or a reader that left shows here, not as a complaint of the interpreter after the end.
            sys.stdout.flush()
        if status == 130:  # typer makes a status of Ctrl-C, and says nothing
            _remark("stopped", "", 130)
    except (Exception, KeyboardInterrupt) as error:
        if debug and not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        status = _explain(error, verb)
    sys.exit(status if isinstance(status, int) else 0)


def _without_trust(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without ``--trust-code NAME``, and the names, several of which may be joined by commas."""
    rest: list[str] = []
    names: list[str] = []
    following = iter(arguments)
    for argument in following:
        flag, equals, value = argument.partition("=")
        if flag == "--trust-code":
            following_flag = "" if equals else next(following, "")
            if following_flag.startswith("-"):  # the name was forgotten, which is told; the flag stays one
                rest.append(following_flag)
                following_flag = ""
            names += (value if equals else following_flag).split(",")
        else:
            rest.append(argument)
    return rest, [name.strip() for name in names]


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"samo {__version__}")
        raise typer.Exit


def _top(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", is_eager=True, callback=_show_version
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of any error; works behind every verb."),
    trust_code: str = typer.Option(
        "",
        "--trust-code",
        metavar="MODULE:NAME,...",
        help="Let a run import this code, which does not come with SAMO; works behind every verb.",
    ),
) -> None:
    """Options of ``samo`` itself; :func:`main` takes ``--debug`` and ``--trust-code`` out before."""


def _named_only() -> None:
    """Stands in for a verb that this call does not use, so that its imports cost nothing."""


def _explain(error: BaseException, verb: str | None) -> int:
    """One line on stderr for any error; returns the exit status."""
    if isinstance(error, Interrupted):
        return _remark(f"stopped: {error.message.removeprefix('training stopped ')}", error.hint, error.exit_status)
    if isinstance(error, ModuleNotFoundError):
        error = missing_extra(error, f"samo {verb}") or error
    if isinstance(error, SamoError):
        return _complain(error.message, error.hint, error.exit_status)
    if isinstance(error, TyperException):
        return _usage(error, verb)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _remark("stopped", "", 130)
    if isinstance(error, BrokenPipeError):
        # The reader (head, less) went away; nothing is wrong.
        _abandon_stdout()
        return 0
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        status = DiskFull.exit_status if full else EnvironmentProblem.exit_status
        place = f"{error.filename}: " if error.filename else ""
        if not place:
            _abandon_stdout()
        return _complain(f"{place}{error.strerror}", "--debug shows where it happened", status)
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return _complain(f"out of memory: {error}", "train with a smaller --batch-size", EnvironmentProblem.exit_status)
    return _complain(f"unexpected {kind}: {error}", "run the same command with --debug and report it", 70)


def _usage(error: TyperException, verb: str | None) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.ctx.get_help())  # type: ignore[attr-defined]
        return 0
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    requested = f"samo {verb} --help" if verb in VERBS else "samo --help"
    message = message[:1].lower() + message[1:].rstrip(".")
    return _complain(message, f"`{requested}` lists what is valid", getattr(error, "exit_code", 2))


def _complain(message: str, hint: str, status: int) -> int:
    return _remark(f"error: {' '.join(message.split())}", hint, status)


def _remark(line: str, hint: str, status: int) -> int:
    line = as_flags(line + (f" (hint: {hint})" if hint else ""))
    with suppress(OSError):
        print(printable(line), file=sys.stderr)
    return status


def _abandon_stdout() -> None:
    """What could not be written is dropped, so that the interpreter does not stumble over it again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Notes(logging.Handler):
    """Logged warnings as notes in the style of the others."""

    def emit(self, record: logging.LogRecord) -> None:
        print(printable(f"· {as_flags(' '.join(record.getMessage().split()))}"), file=sys.stderr)


@contextmanager
def _notes_from_libraries() -> Iterator[None]:
    handler = _Notes(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)

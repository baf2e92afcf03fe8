"""``samo serve``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import EnvironmentProblem, SettingsError
from samo.serve.limits import Limits
from samo_cli.flags import switch
from samo_cli.options import Artifacts, Device, Precision, Threads

if TYPE_CHECKING:
    from samo.prediction import ModelPredictor

__all__ = ["serve"]

_SHORTEST_KEY = 16
_KINDS = {"int": int, "float": float}


def _with_limits(verb: Callable[..., None]) -> Callable[..., None]:
    """Give the verb a flag for each field of :class:`samo.serve.limits.Limits`; it receives them as ``limits``."""
    own = [each for each in inspect.signature(verb, eval_str=True).parameters.values() if each.name != "limits"]
    flags = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=Annotated[
                _KINDS[str(each.type)],
                typer.Option(
                    switch(each.name),
                    help=f"{each.metadata['description'][:1].upper()}{each.metadata['description'][1:]}.",
                    rich_help_panel="Limits",
                    metavar="INTEGER" if each.type == "int" else "NUMBER",
                ),
            ],
        )
        for each in fields(Limits)
    ]

    def command(**values: Any) -> None:
        limits = Limits(**{each.name: values.pop(each.name) for each in fields(Limits)})
        verb(**values, limits=limits)

    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in [*own, *flags]}
    return command


@_with_limits
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|FILE ...]",
            help="Runs by name or folder, exported files, samo-speech or samo-text; else the newest run.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="NUMBER", help="Port to listen at; 0 takes one that is free.")
    ] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Answer only with this key, as Authorization: Bearer KEY; may be given several times. Others on this "
            "machine see it: better $SAMO_API_KEY or --api-key-file.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same from a file of one key a line.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Answer other machines without a key. Anybody who reaches it may use it.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Answer under this name too, for example that of a proxy; may be given several times."
        ),
    ] = None,
    log_predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append every answer as a line of JSON, without sound and text: what `samo drift` reads.",
        ),
    ] = None,
    log_inputs: Annotated[
        bool, typer.Option("--log-inputs", help="Write texts there too. People must know that you do.")
    ] = False,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    *,
    limits: Limits,
) -> None:
    """Answer over HTTP with trained models: a page at /, the interface at /docs.

    Only this machine reaches it, unless --host names another address; that needs a key.
    Ctrl-C or SIGTERM stop it: what was asked before is still answered.
    """
    keys = _keys(api_key or [], api_key_file)
    if log_inputs and not log_predictions:
        raise SettingsError("--log-inputs acts only together with --log-predictions")
    try:
        from samo.serve.app import make_app
        from samo.serve.gate import LOOPBACK_NAMES, host_name
        from samo.serve.server import is_loopback, listening
        from samo.serve.server import serve as answer
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            f"serving needs {error.name}, which is not installed", hint='pip install "samo-emotion[serve]"'
        ) from error
    names = _host_names(allow_host or ())
    local = is_loopback(host)
    if not local and not keys and not insecure:
        raise SettingsError(
            f"other machines reach {host}: they need a key", hint="set $SAMO_API_KEY or --api-key-file, or --insecure"
        )
    # Before the models, which take seconds.
    socket = listening(host, port)
    from samo_cli.render import note

    loaded = _loaded(models or [""], artifacts, device=device, precision=precision, threads=threads)
    hosts = {*names, *(LOOPBACK_NAMES if local or names else ()), *([host_name(host)] if local else ())}
    app = make_app(loaded, limits, keys=keys, hosts=hosts, log=log_predictions, log_inputs=log_inputs)
    for name, model in loaded.items():
        note(f"model {name}: {model.facts.modality}, {model.facts.network} on {model.facts.dataset}")
    shown, number = socket.getsockname()[:2]
    place = f"[{shown}]" if ":" in shown else shown
    note(f"serving at http://{place}:{number} (Ctrl-C stops)")
    answer(app, [socket])


def _keys(typed: Sequence[str], file: Path | None) -> list[str]:
    """All keys, without the blanks around them; lines of the file that begin with ``#`` are comments.

    Raises:
        SettingsError: one that can be guessed or that no header can carry, or a file without any.
    """
    keys = [key.strip() for key in typed] + list(filter(None, [os.environ.get("SAMO_API_KEY", "").strip()]))
    if file:
        try:
            # Some editors begin a file with a mark of its encoding, which is no part of the key.
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the keys in {file}") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise SettingsError(f"there is no key in {file}")
        keys += found
    if any(len(key) < _SHORTEST_KEY for key in keys):
        raise SettingsError(
            f"an API key has at least {_SHORTEST_KEY} characters", hint="openssl rand -hex 16 makes one"
        )
    if any(not "!" <= letter <= "~" for key in keys for letter in key):
        raise SettingsError(
            "an API key has letters, digits and signs of ASCII only, and no blanks: no request could send this one",
            hint="openssl rand -hex 16 makes one",
        )
    return keys


def _host_names(typed: Sequence[str]) -> list[str]:
    """Further names to answer under, without ports.

    Raises:
        SettingsError: one that is no name.
    """
    from samo.serve.gate import host_name

    names = [host_name(given.strip()) for given in typed]
    for given, name in zip(typed, names, strict=True):
        if not name or set(given.strip()) & set("/@?#* \t"):
            raise SettingsError(f"--allow-host {given!r} is no name", hint="for example emotions.example")
    return names


def _loaded(given: Sequence[str], artifacts: str, **how: Any) -> dict[str, ModelPredictor]:
    """The models by name: an exported file is called as it is named, a run as it is.

    Raises:
        SettingsError: two of one name.
    """
    from samo.runs.artifacts import artifacts_root, find_model
    from samo.runs.released import released_for

    found: dict[str, ModelPredictor] = {}
    exported = {each for each in given if Path(each).is_file()}
    for each in given:
        if each not in exported and not released_for(each, artifacts_root(artifacts)):
            find_model(artifacts_root(artifacts), each)  # before torch is imported
    import samo

    for each in given:
        model = samo.load(each, artifacts=artifacts, **how)
        name = Path(each).stem if each in exported else model.facts.name
        if name in found:
            raise SettingsError(f"two models are called '{name}'", hint="rename the file or the run of one")
        found[name] = model
    return found

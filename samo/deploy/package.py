"""A folder with which somebody else can run a model: the file, what it needs, how to call it, what is said of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from samo import __version__
from samo.deploy.distribution import WHEEL, installed, pinned, write_wheel
from samo.deploy.licence import licence_of, licence_terms
from samo.deploy.package_files import Facts, slug_of, text_files
from samo.errors import SettingsError, reporting_full_disk
from samo.files import folder_beside, parse_json, remove_left_folders
from samo.modalities import write_examples
from samo.prediction import ModelPredictor
from samo.prediction.exported import ExportedModel, is_exported, load_exported
from samo.reporting.published import published_card
from samo.runs.artifacts import artifacts_root
from samo.runs.released import released_for
from samo.runs.reporter import PlainReporter, Reporter
from samo.stored import Stored, Text, validated

__all__ = ["LISTING", "Packaged", "package"]

LISTING = "samo-package.json"
# Another machine's arithmetic moves a probability by less.
TOLERANCE = 0.01
_DIGITS = 4


class _Listing(Stored):
    """What a package says of itself."""

    package: Annotated[int, Field(strict=True, ge=1)]
    samo: Text
    model: Text
    files: dict[Text, Text]


@dataclass(frozen=True)
class Packaged:
    """A package that was written.

    Attributes:
        path: its folder.
        model: the model's file in it.
        files: SHA-256 of each file by its place.
        size_mb: of all files together.
    """

    path: Path
    model: str
    files: Mapping[str, str]
    size_mb: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": 1,
            "path": str(self.path),
            "model": self.model,
            "size_mb": self.size_mb,
            "files": dict(self.files),
        }


def package(
    model: str | Path = "",
    to: str | Path = "",
    *,
    overwrite: bool = False,
    data_root: str | Path = "",
    artifacts: str | Path = "",
    threads: int = 0,
    reporter: Reporter | None = None,
) -> Packaged:
    """Write a model as a folder that runs elsewhere, without torch.

    Of one exported file and one installation of SAMO it has the same bytes each time.

    Args:
        model: a file of :func:`samo.deploy.export.export`; the name of a model that comes with SAMO; else a run by name
            or folder, which is exported first; empty: the newest that has a model.
        to: the folder to make.
        overwrite: replace a package that is there; never anything else.
        data_root: of a run: where its data lie now; empty: where they lay.
        artifacts: folder of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts`` below the working directory.
        threads: CPU threads; 0 = all cores.
        reporter: is told what happens; None prints plain lines on stderr.

    Raises:
        SettingsError: there is something at ``to`` already, or arguments that do not go together.
        RunError, ModelFileError, DataError, ExportError: see :func:`samo.deploy.export.export`.
        EnvironmentProblem: what is to be pinned is not installed.
        DiskFull: no space is left.
    """
    if not str(to):
        raise SettingsError("a package needs a folder", hint="name a new one with `output`")
    released = released_for(str(model), artifacts_root(str(artifacts))) if str(model) else None
    exported = bool(released) or is_exported(model)
    if exported and data_root:
        raise SettingsError("`data_root` acts only together with a run", hint="an exported file needs no data")
    target = Path(to).expanduser()
    _require_place(target, overwrite)
    about, reporter = installed(), reporter or PlainReporter()
    base = pinned(about.requires)
    served = {name: version for name, version in pinned(about.extras["serve"], "serve").items() if name not in base}
    remove_left_folders(target)
    with reporting_full_disk(target), folder_beside(target) as folder:
        source = Path(released or model) if exported else folder / "exported.onnx"
        if not exported:
            _export(str(model), source, data_root, artifacts, threads, reporter)
        opened = ExportedModel.open(source)
        if note := _other_figures(source, opened.content):
            reporter.note(note)
        if published_card(opened.metadata.card) != opened.metadata.card:
            reporter.note(
                f"{source} was exported by an earlier version: the card in it names folders of the machine it was made"
                " on; export it again before you pass it on"
            )
        whole = folder / "package"
        facts = _write_model(opened, whole, threads)
        write_wheel(whole / "wheels", about)
        _requirements(whole / "requirements.txt", [f"./wheels/{WHEEL}"], base)
        _requirements(whole / "requirements-serve.txt", ["-r requirements.txt"], served)
        files = _digests(whole)
        listing = {"package": 1, "samo": __version__, "model": facts.model, "files": files}
        (whole / LISTING).write_text(_json(listing), encoding="utf-8")
        size = sum(path.stat().st_size for path in _files(whole).values())
        _put(whole, target, folder / "before", overwrite)
    return Packaged(target, facts.model, files, round(size / 1e6, 4))


def _write_model(model: ExportedModel, whole: Path, threads: int) -> Facts:
    """The file, its pages and examples of inputs, each with what the model answers to it."""
    (whole / "examples").mkdir(parents=True)
    inputs = write_examples(model.modality, whole / "examples")
    facts = _facts(model, next(iter(inputs)))
    (whole / facts.model).write_bytes(model.content)
    for place, text in text_files(facts).items():
        (whole / place).write_text(text, encoding="utf-8")
    expected = _expected(load_exported(model, threads=threads), facts.modality, whole / "examples", inputs)
    (whole / "examples" / "expected.json").write_text(_json(expected), encoding="utf-8")
    return facts


def _export(run: str, to: Path, data_root: str | Path, artifacts: str | Path, threads: int, reporter: Reporter) -> None:
    from samo.deploy.export import export

    export(run, to, data_root=data_root, artifacts=artifacts, threads=threads, reporter=reporter)


def _other_figures(source: Path, content: bytes) -> str:
    """What to say where the ``export.json`` beside a file is of another file; empty where it is not, or unknown."""
    beside = source.with_suffix(".export.json")
    try:
        kept = parse_json(beside.read_bytes())["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    same = kept == hashlib.sha256(content).hexdigest()
    return "" if same else f"{beside} is of another file than {source}: its figures do not count"


def _facts(model: ExportedModel, first: str) -> Facts:
    about = model.facts
    licence, citation = licence_of(model.modality, about.dataset)
    return Facts(
        slug=slug_of(about.name),
        name=about.name,
        modality=model.modality,
        description=tuple(line.strip() for line in about.describe(model.space).splitlines()[1:]),
        dataset=about.dataset,
        licence=licence,
        citation=citation,
        terms=tuple(licence_terms(licence)),
        synthetic=about.synthetic,
        card=published_card(model.metadata.card),
        first=first,
        samo=__version__,
    )


def _expected(predictor: ModelPredictor, modality: str, folder: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
    """What the model answers to the examples here."""
    examples = []
    for given in inputs.values():
        answer = predictor.predict(folder / given if modality == "audio" else given)
        plain = answer.to_json()
        tasks = {
            name: {**task, "probabilities": {k: round(share, _DIGITS) for k, share in task["probabilities"].items()}}
            for name, task in plain["tasks"].items()
        }
        named = {"file" if modality == "audio" else "text": given}
        examples.append({**named, "label": plain["label"], "abstained": plain["abstained"], "tasks": tasks})
    return {"schema": 1, "tolerance": TOLERANCE, "examples": examples}


def _requirements(path: Path, first: list[str], versions: Mapping[str, str]) -> None:
    path.write_text("\n".join([*first, *(f"{name}=={version}" for name, version in versions.items()), ""]))


def _require_place(target: Path, overwrite: bool) -> None:
    """Refuse to write over anything but a package, and over a package without leave.

    Raises:
        SettingsError: there is something.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise SettingsError(f"{target} is no folder", hint="name a new one")
    if not target.exists() or not any(target.iterdir()):
        return
    if not overwrite:
        raise SettingsError(f"{target} exists", hint="name a new folder, or replace a package with `overwrite`")
    foreign = _foreign(target)
    if foreign:
        raise SettingsError(
            f"{target} is not replaced: {foreign}", hint="`overwrite` replaces what `samo package` wrote, nothing else"
        )


def _foreign(target: Path) -> str:
    """Why a folder is not just a package; empty if it is."""
    try:
        listing = validated(_Listing, parse_json((target / LISTING).read_bytes()))
    except (OSError, ValueError):
        return f"it has no {LISTING} that can be read, so it is no package"
    others = sorted(_files(target).keys() - listing.files.keys() - {LISTING})
    return f"{others[0]} does not belong to the package" if others else ""


def _put(whole: Path, target: Path, aside: Path, overwrite: bool) -> None:
    """Move a finished package to its place; one that was there before goes only once the new one stands."""
    _require_place(target, overwrite)
    for path in whole.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    whole.chmod(0o755)
    if not target.exists():
        whole.rename(target)
        return
    target.rename(aside)
    try:
        whole.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _files(folder: Path) -> dict[str, Path]:
    """All that is not a folder, links included, by its place; sorted."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


def _digests(folder: Path) -> dict[str, str]:
    return {place: hashlib.sha256(path.read_bytes()).hexdigest() for place, path in _files(folder).items()}


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

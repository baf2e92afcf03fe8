"""Networks and corpora that do not come with SAMO: found by name, imported only where somebody named them.

``model`` and ``dataset`` take, besides the names SAMO knows, ``package.module:attribute`` and the names that installed
distributions give under the entry points ``samo.models`` and ``samo.datasets``. Such code runs with all rights of its
user, so that a run's own settings are no reason to import it. What is typed, read from a configuration file or passed
as ``trust_code`` is: :func:`trust` remembers it for as long as the process lives.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from samo.errors import SamoError, SettingsError, first_ten, nearest
from samo.lazy import load_object
from samo.modalities import MODALITIES, config_types, unknown_name

if TYPE_CHECKING:
    from samo.settings import Config

__all__ = [
    "CODE_SETTINGS",
    "Plugin",
    "Registry",
    "code_used",
    "is_trusted",
    "names_of",
    "registry_of",
    "trust",
    "trust_settings",
    "trusted",
]

CODE_SETTINGS = ("model", "dataset")
"""The settings that may name code, the same in every modality."""

_trusted: set[str] = set()

T = TypeVar("T")


def trust(*names: str) -> None:
    """Let these names be imported until the process ends; names of SAMO's own do no harm."""
    _trusted.update(filter(None, names))


def names_of(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names joined by commas, or several of them; a string is never taken letter by letter.

    Raises:
        TypeError: something that is no name.
    """
    parts = given.split(",") if isinstance(given, str) else list(given or ())
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("`trust_code` takes names such as 'my_net:tiny'")
    return tuple(part.strip() for part in parts if part.strip())


def trust_settings(settings: Mapping[str, Any]) -> None:
    """:func:`trust` what settings name that a person gave: typed, in a file of theirs, as arguments."""
    trust(*(str(settings[name]) for name in CODE_SETTINGS if settings.get(name)))


def trusted() -> list[str]:
    """What was trusted so far: a command hands it to its workers."""
    return sorted(_trusted)


def is_trusted(name: str) -> bool:
    """Whether somebody named it."""
    return name in _trusted


@dataclass(frozen=True)
class Plugin:
    """Code that a setting names.

    Attributes:
        setting: ``model`` or ``dataset``.
        name: the setting's value.
        target: ``module:attribute``; an entry point may name a module alone.
        distribution: name and version of the package whose entry point it is; empty for code named by its place.
    """

    setting: str
    name: str
    target: str
    distribution: str = ""

    def __str__(self) -> str:
        return f"`{self.setting}={self.name}`"

    def load(self) -> Any:
        """Import it; the working directory is looked through after everything installed.

        Raises:
            SettingsError: nobody named it, there is no such module or attribute, or importing it fails.
        """
        if not is_trusted(self.name):
            raise SettingsError(f"{self} is code that does not come with SAMO", hint=trust_hint([self.name]))
        module = self._module()
        found: Any = module
        for part in filter(None, self.target.partition(":")[2].split(".")):
            if not hasattr(found, part):
                names = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
                raise SettingsError(
                    f"{self}: '{module.__name__}' ({_source(module) or 'no file'}) has no '{part}'",
                    hint=nearest(part, names) + f"it has: {first_ten(names)}",
                )
            found = getattr(found, part)
        return found

    def made(self, kind: type[T], *arguments: Any) -> T:
        """What the function it names makes of ``arguments``.

        Raises:
            SettingsError: see :meth:`load`; or it cannot be called, fails, or makes something else.
        """
        make = self.load()
        if not callable(make):
            raise SettingsError(f"{self} is no function: {type(make).__name__} cannot be called")
        with self.blamed(SettingsError, "it"):
            found = make(*arguments)
        if not isinstance(found, kind):
            raise SettingsError(
                f"{self} gives {type(found).__name__}, not a {kind.__module__}.{kind.__qualname__}",
                hint="name the function that makes the network of its settings",
            )
        return found

    @contextmanager
    def blamed(self, kind: type[SamoError], what: str) -> Iterator[None]:
        """Say whose fault an exception is; those of :mod:`samo.errors` say it themselves.

        Raises:
            SamoError: of ``kind``, for any other exception.
        """
        try:
            yield
        except SamoError:
            raise
        except Exception as error:
            raise kind(f"{self}: {what} fails: {type(error).__name__}: {error}") from error

    def record(self) -> dict[str, str]:
        """Which code it is, for a run to remember: module, attribute, distribution, SHA-256 of the module's file.

        Raises:
            SettingsError: see :meth:`load`.
        """
        name, _, attribute = self.target.partition(":")
        self.load()
        file = _source(import_module(name))
        return {
            "name": self.name,
            "module": name,
            "attribute": attribute,
            "distribution": self.distribution or _distribution_of(name),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file else "",
        }

    def _module(self) -> ModuleType:
        name, colon, attribute = self.target.partition(":")
        if not name or (colon and not attribute):
            raise SettingsError(f"{self}: write code of your own as package.module:name")
        here = os.getcwd()
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)
        with self.blamed(SettingsError, f"importing '{name}'"):
            try:
                return import_module(name)
            except ModuleNotFoundError as error:
                if not error.name or not f"{name}.".startswith(f"{error.name}."):
                    raise
                raise SettingsError(
                    f"{self}: there is no module '{name}'",
                    hint="it is looked for among the installed packages and in the working directory; write it as "
                    "package.module:name, without .py",
                ) from error


class Registry(Mapping[str, T]):
    """What SAMO knows for a setting, by name, and whatever else may be named there.

    Iterating gives SAMO's own names and those of installed distributions. Every ``package.module:attribute`` is in it;
    whether there is such code shows when it is taken.
    """

    def __init__(
        self,
        setting: str,
        modality: str,
        own: Iterable[str],
        take: Callable[[str], T],
        adopt: Callable[[Plugin], T],
    ) -> None:
        """Describe it; nothing is imported.

        Args:
            setting: one of :data:`CODE_SETTINGS`.
            modality: whose.
            own: SAMO's own names.
            take: gives what stands behind one of these.
            adopt: makes the same of a plug-in.
        """
        self._setting, self._modality = setting, modality
        self.own = tuple(own)
        self._take, self._adopt = take, adopt

    def plugin(self, name: str) -> Plugin | None:
        """The code a name stands for; None for a name of SAMO's own, or an unknown one."""
        if name in self.own:
            return None
        if ":" in name:
            return Plugin(self._setting, name, name)
        return self._installed().get(name)

    def unknown(self, name: str) -> SettingsError:
        """The error for a name that is not in it, see :func:`samo.modalities.unknown_name`."""
        found = {modality: registry_of(self._setting, kind) or () for modality, kind in config_types().items()}
        return unknown_name(self._setting, name, self._modality, {**found, self._modality: self})

    def __getitem__(self, name: str) -> T:
        if name in self.own:
            return self._take(name)
        plugin = self.plugin(name)
        if plugin is None:
            raise KeyError(name)
        return self._adopt(plugin)

    def __contains__(self, name: object) -> bool:
        return name in self.own or (isinstance(name, str) and self.plugin(name) is not None)

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in self._installed() if name not in self.own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _installed(self) -> dict[str, Plugin]:
        """Entry points of the setting's group; ``audio.NAME`` or ``text.NAME`` is for that modality alone."""
        found = {}
        for name, target, distribution in _entry_points(f"samo.{self._setting}s", tuple(sys.path)):
            modality, dot, rest = name.partition(".")
            if not dot or modality not in MODALITIES:
                modality, rest = self._modality, name
            if modality == self._modality:
                found[rest] = Plugin(self._setting, rest, target, distribution)
        return found


def registry_of(setting: str, kind: type[Config]) -> Registry[Any] | None:
    """The registry behind a setting of :data:`CODE_SETTINGS` in a modality's settings; None where it names no code."""
    choices = next((field.choices for field in kind.fields() if field.name == setting), "")
    return load_object(choices) if choices else None


def code_used(*configs: Config) -> dict[str, dict[str, str]]:
    """What a run with these settings must remember of code that does not come with SAMO, by setting.

    Of several settings, as an ensemble's members have them, the second code of a setting stands under ``model 2``.

    See :meth:`Plugin.record`.

    Raises:
        SettingsError: see :meth:`Plugin.load`.
    """
    found: dict[str, dict[str, str]] = {}
    for config, setting in itertools.product(configs, CODE_SETTINGS):
        registry = registry_of(setting, type(config))
        if registry is None or (plugin := registry.plugin(str(config.flat()[setting]))) is None:
            continue
        if plugin.name in (each["name"] for each in found.values()):
            continue
        number = sum(key.split()[0] == setting for key in found) + 1
        found[setting if number == 1 else f"{setting} {number}"] = plugin.record()
    return found


def trust_hint(names: Iterable[str]) -> str:
    """How somebody lets code be imported."""
    together = ",".join(names)
    return f"it runs with all your rights; if you trust it, call samo.plugins.trust or give `trust_code={together}`"


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Name, target and distribution; ``path`` is :data:`sys.path`, so that a changed one is searched again."""
    return [
        (point.name, point.value, f"{point.dist.name} {point.dist.version}" if point.dist else "")
        for point in entry_points(group=group)
    ]


def _source(module: ModuleType) -> Path | None:
    try:
        file = inspect.getsourcefile(module)
    except TypeError:  # built into the interpreter
        return None
    return Path(file) if file and Path(file).is_file() else None


@cache
def _distributions(path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Names of distributions by module, of which all are read for that; ``path`` is :data:`sys.path`."""
    return packages_distributions()


def _distribution_of(module: str) -> str:
    """Name and version of the distribution a module came with; empty for a file beside the user."""
    names = _distributions(tuple(sys.path)).get(module.partition(".")[0], [])
    return f"{names[0]} {version(names[0])}" if names else ""

"""Reading pretrained encoders through ``transformers``: its cache, its downloads, errors in one line."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from samo.data.corpora import looks_like_path, require_folder
from samo.errors import EnvironmentProblem, ModelFileError

__all__ = ["NO_CODE", "offline", "quiet", "reading", "remembered", "source_of"]

# What is read may be a stranger's: a model that brings code of its own is refused, and nobody is asked.
NO_CODE = {"trust_remote_code": False}

_OFFLINE_HINT = "download it where there is a net (`hf download NAME`) and copy the folder, then `{setting}=FOLDER`"
_WITHOUT = {"encoder": "; or train without one: another `model`"}


def source_of(place: str) -> str:
    """What ``transformers`` is to be given: a folder with ``~`` expanded, or a name as it stands."""
    folder = Path(place).expanduser()
    return str(folder) if folder.is_dir() else place


def remembered(place: str) -> str:
    """A folder by its full path, since a run may be judged from elsewhere; a name as it stands.

    One that was deleted since, too, where it is spelled as only a path is: what is named by it keeps its name.
    With one slash at most it may be a name on the hub, and stays as it stands.
    """
    folder = Path(place).expanduser()
    return str(folder.absolute()) if place and (folder.is_dir() or looks_like_path(place)) else place


def offline(place: str) -> bool:
    """Whether ``transformers`` should look on this machine only: for a folder, or when the hub does not answer.

    Asked first, since the library itself tries for a minute before it gives up.
    """
    return Path(place).expanduser().is_dir() or not _hub_answers()


@cache
def _hub_answers() -> bool:
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    address = urlsplit(ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((str(address.hostname), port), timeout=5.0).close()
    except OSError:
        return False
    return True


@contextmanager
def reading(place: str, what: str, setting: str = "encoder") -> Iterator[None]:
    """Turn what ``transformers`` raises while it reads ``what`` of a pretrained model into one clear line.

    Args:
        place: a folder, or a name on the Hugging Face hub.
        what: ``tokenizer``, ``configuration`` or ``weights``.
        setting: what named the place.

    Raises:
        ModelFileError: a folder that does not exist or holds no usable model.
        EnvironmentProblem: a name that is neither cached on this machine nor reachable.
    """
    require_folder(place, setting)
    folder = Path(place).expanduser()
    if folder.is_dir() and not any((folder / name).is_file() for name in ("config.json", "tokenizer_config.json")):
        raise ModelFileError(
            f"`{setting}={place}` holds neither config.json nor tokenizer_config.json, so it is no pretrained model",
            hint="give the folder with config.json, tokenizer files and weights",
        )
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        if folder.is_dir():
            raise ModelFileError(f"`{setting}={place}`: cannot read its {what}: {reason}") from error
        why = reason if _hub_answers() else "the hub cannot be reached and this machine has no copy"
        raise EnvironmentProblem(
            f"`{setting}={place}`: no such folder, and no {what} of that name: {why}",
            hint=_OFFLINE_HINT.format(setting=setting) + _WITHOUT.get(setting, ""),
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's reports of unused tensors and its bar over loaded ones from the terminal."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()

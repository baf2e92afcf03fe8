"""Pretrained encoders of the ``transformers`` library: read, checked, built again without weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from samo.encoders.hub import NO_CODE, offline, quiet, reading, source_of
from samo.errors import ModelFileError, first_few
from samo.files import write_text

__all__ = ["CONFIG_NAME", "Check", "Half", "from_assets", "load_pretrained", "read_config", "save_config"]

CONFIG_NAME = "config.json"

Check = Callable[[str, Any], None]
"""Refuses, by a ``ModelFileError``, a configuration read from a place that is no encoder of its modality."""


Half = tuple[Any, dict[str, str]]
"""A class of ``transformers`` that is part of a larger model, and what its weights are called there."""


def load_pretrained(place: str, check: Check, half_of: Callable[[Any], Half | None] = lambda config: None) -> Any:
    """Read a pretrained encoder, weights in float32.

    Args:
        place: a folder, or a name on the Hugging Face hub, which ``transformers`` downloads and keeps.
        check: which encoders the modality takes; called before any weight is read.
        half_of: which part of the model is the encoder, by its configuration; None = all of it.

    Returns:
        A ``transformers.PreTrainedModel`` without a pooling layer, in evaluation mode.

    Raises:
        ModelFileError: a folder without encoder, no encoder, or weights that do not fit their configuration.
        EnvironmentProblem: a name that is neither on this machine nor reachable.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel

    config = read_config(place, check)
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "local_files_only": offline(place),
        "output_loading_info": True,
    }
    half = half_of(config)
    if half:
        kind, options["key_mapping"] = half
    else:
        kind, options = AutoModel, {**options, **_plain(config), **NO_CODE}
    with quiet(), reading(place, "weights"):
        try:
            encoder, found = kind.from_pretrained(source_of(place), config=config, **options)
        except SafetensorError as error:
            raise OSError(f"damaged: {error}") from error
    missing, n_tensors = sorted(found["missing_keys"]), len(encoder.state_dict())
    if missing:
        raise ModelFileError(
            f"`encoder` {place}: {len(missing)} of {n_tensors} tensors are not among its weights:"
            f" {first_few(missing, 3)}",
            hint="its config.json and its weights must belong together",
        )
    return encoder.eval()


def from_assets(folder: Path, half_of: Callable[[Any], Half | None] = lambda config: None) -> Any:
    """The architecture that :func:`save_config` described, its weights undefined until they are loaded.

    Raises:
        ModelFileError: no configuration there, or a damaged one.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, **NO_CODE)
        # Random start weights of a large encoder take seconds, and are overwritten at once.
        with quiet(), no_init_weights():
            if half := half_of(config):
                return half[0](config)
            return AutoModel.from_config(config, dtype=torch.float32, **_plain(config), **NO_CODE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{folder / CONFIG_NAME} does not describe an encoder: {reason}") from error


def save_config(config: Any, folder: Path) -> None:
    """Write the ``config.json`` that :func:`from_assets` reads."""
    config.__dict__.pop("auto_map", None)  # a run names no code
    write_text(folder / CONFIG_NAME, config.to_json_string(use_diff=True))


def read_config(place: str, check: Check) -> Any:
    """The configuration of a pretrained encoder.

    Raises:
        ModelFileError, EnvironmentProblem: see :func:`load_pretrained`.
    """
    from transformers import AutoConfig

    _refuse_wrapped(place)
    with quiet(), reading(place, "configuration"):
        config = AutoConfig.from_pretrained(source_of(place), local_files_only=offline(place), **NO_CODE)
    check(place, config)
    return config


def _refuse_wrapped(place: str) -> None:
    """A sentence-transformers folder may keep its encoder one level below."""
    folder = Path(place).expanduser()
    if not (folder / "modules.json").is_file() or (folder / CONFIG_NAME).is_file():
        return
    inner = sorted(path.parent.name for path in folder.glob(f"*_Transformer/{CONFIG_NAME}"))
    raise ModelFileError(
        f"`encoder` {place} is a sentence-transformers model that keeps its encoder in a folder below",
        hint=f"give `encoder={folder / inner[0]}`" if inner else "give the folder with config.json and weights",
    )


def _plain(config: Any) -> dict[str, bool]:
    """Leave out the layer on top of the first token, where a family has one: its output is never read."""
    from transformers import MODEL_MAPPING

    made: Any = MODEL_MAPPING[type(config)]
    made = made[0] if isinstance(made, tuple) else made
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(made).parameters else {}

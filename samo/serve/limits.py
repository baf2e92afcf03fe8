"""What a server takes from strangers, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from samo.errors import SettingsError

__all__ = ["Limits"]


def _limit(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Limits:
    """How much, how long and how many; each is a flag of ``samo serve``, which its description is from.

    Raises:
        SettingsError: a limit that nothing could keep to.
    """

    max_body_mb: float = _limit(20.0, "largest body of a request in MB, 413 above")
    max_duration_s: float = _limit(300.0, "longest clip in seconds, 422 above")
    max_items: int = _limit(64, "most clips or texts in one request, 413 above")
    max_chars: int = _limit(20_000, "most characters of a text, 422 above")
    max_memory_mb: float = _limit(
        512.0, "bodies and decoded clips kept at once in MB, 429 above; 413 if one request takes more"
    )
    max_queue: int = _limit(128, "inputs that wait for one model, 429 above")
    max_batch: int = _limit(32, "most windows of clips, or texts, through a model at once, unless one clip has more")
    batch_wait_ms: float = _limit(3.0, "how long a batch waits for clips that are being decoded, in ms; 0 = not")
    header_timeout: float = _limit(10.0, "until the head of a request is complete, in seconds; else it is cut off")
    body_timeout: float = _limit(20.0, "until the body is complete, in seconds, 408 after")
    decode_timeout: float = _limit(10.0, "until a clip is decoded, in seconds, 504 after")
    answer_timeout: float = _limit(30.0, "from the complete body to the answer, in seconds, 504 after")
    drain_timeout: float = _limit(30.0, "until requests are cut off that still go on after SIGTERM, in seconds")
    decoders: int = _limit(2, "processes that decode clips")
    decoder_memory_mb: int = _limit(1024, "memory that each of them may have, in MB")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 <= value < float("inf") or (value == 0 and each.name != "batch_wait_ms"):
                raise SettingsError(f"`{each.name}` is {value:g}, and must be above 0")
        if self.max_items > self.max_queue:
            raise SettingsError(f"`max_items` is {self.max_items}, but `max_queue` has room for {self.max_queue} only")
        if self.max_body_mb > self.max_memory_mb:
            raise SettingsError(
                f"`max_body_mb` is {self.max_body_mb:g}, above the {self.max_memory_mb:g} of `max_memory_mb`"
            )

    @property
    def body_bytes(self) -> int:
        """Bytes of the largest body."""
        return round(self.max_body_mb * 1e6)

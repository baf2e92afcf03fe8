"""The process that decodes clips: what kills it, or makes it eat memory, does not reach the server.

A line of JSON on stdin stands for each request, and one on stdout for each answer. The bytes of the clip and the
samples that come of them lie in two files without a name, which server and decoder share: a pipe would wake both up for
every 64 KB. No pickle: whoever takes over this process gets nothing in the server run.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from samo.errors import DataError
from samo.files import parse_json
from samo.lazy import load_object

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Decode until stdin ends.

    Args:
        arguments: what decodes, as ``"module:function"`` (see :attr:`samo.modalities.Modality.decoder`), the memory it
            may have in bytes, and the numbers of two open files: that of the clip and that of the samples.
    """
    target, memory, clip, samples = arguments[0], *map(int, arguments[1:])
    decode = load_object(target)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A decoder that prints must not be taken for an answer.
    os.dup2(2, 1)
    limit(memory)
    send(answers, {"ready": True})
    while line := requests.readline():
        request = parse_json(line)
        send(answers, decoded(decode, clip, samples, request["sr"], request["longest_s"]))


def limit(memory: int) -> None:
    """No more memory than that, no file that others could read later, no picture of the memory on a crash."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decoded(decode: Callable[..., Any], clip: int, samples: int, sr: int, longest_s: float) -> dict[str, Any]:
    """The answer to a request, whose samples are written to their file."""
    path = f"/dev/fd/{clip}"
    os.lseek(clip, 0, os.SEEK_SET)
    try:
        found = decode(path, sr, longest_s)
        waveform = memoryview(found.waveform.astype("<f4", copy=False).tobytes())
        while waveform:
            waveform = waveform[os.write(samples, waveform) :]
    except DataError as error:
        # The name of the file means nothing to whoever sent its bytes.
        message = error.message.replace(f"{path}: ", "").replace(path, "the clip")
        return {"error": message, "hint": error.hint}
    except MemoryError:
        return {"error": "needs more memory to decode than a clip may", "hint": ""}
    warnings = list(found.warnings)
    return {"n_samples": len(found.waveform), "peak": found.peak, "rms_db": found.rms_db, "warnings": warnings}


def send(answers: BinaryIO, about: dict[str, Any]) -> None:
    """Write one answer."""
    answers.write(json.dumps(about).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

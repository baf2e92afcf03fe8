"""The process that decodes clips: what kills it, or makes it eat memory, does not reach the server.

It reads requests on stdin, a line of JSON and the bytes of a file each, and answers on stdout with a line of JSON and
float32 samples. No pickle: whoever takes over this process gets nothing in the server run.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from samo.errors import DataError
from samo.files import parse_json
from samo.lazy import load_object

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Decode until stdin ends.

    Args:
        arguments: what decodes, as ``"module:function"`` (see :attr:`samo.modalities.Modality.decoder`), and the memory
            it may have in bytes.
    """
    target, memory = arguments
    decode = load_object(target)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A decoder that prints must not be taken for an answer.
    os.dup2(2, 1)
    limit(int(memory))
    send(answers, {"ready": True})
    while line := requests.readline():
        request = parse_json(line)
        body = requests.read(request["n_bytes"])
        if len(body) < request["n_bytes"]:
            return
        send(answers, *decoded(decode, body, request["sr"], request["longest_s"]))


def limit(memory: int) -> None:
    """No more memory than that, no file that others could read later, no picture of the memory on a crash."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decoded(decode: Callable[..., Any], body: bytes, sr: int, longest_s: float) -> tuple[dict[str, Any], bytes]:
    """The line and the samples that answer a request."""
    try:
        with kept(body) as path:
            try:
                clip = decode(path, sr, longest_s)
            except DataError as error:
                # The name of the file means nothing to whoever sent its bytes.
                return {
                    "error": error.message.replace(f"{path}: ", "").replace(path, "the clip"),
                    "hint": error.hint,
                }, b""
    except MemoryError:
        return {"error": "needs more memory to decode than a clip may", "hint": ""}, b""
    samples = clip.waveform.astype("<f4", copy=False).tobytes()
    about = {"n_samples": len(clip.waveform), "peak": clip.peak, "rms_db": clip.rms_db, "warnings": list(clip.warnings)}
    return about, samples


@contextmanager
def kept(body: bytes) -> Iterator[str]:
    """The bytes as a file: in memory where the system can, so that a kill leaves nothing of it on a disk."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("clip")
        try:
            with os.fdopen(handle, "wb", closefd=False) as file:
                file.write(body)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        yield file.name


def send(answers: BinaryIO, about: dict[str, Any], samples: bytes = b"") -> None:
    """Write one answer."""
    answers.write(json.dumps(about).encode() + b"\n" + samples)
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

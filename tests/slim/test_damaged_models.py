"""Model files that are none, damaged files and edited metadata: each answers, or is refused in one line."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny_onnx as tiny
from refusals import WAVE, refusal

import samo
from samo.errors import ModelFileError
from samo.prediction import exported

# SAMO_MUTANTS=3000 tries that many of each kind.
N = int(os.environ.get("SAMO_MUTANTS", "150"))


def of(**changes: Any) -> dict[str, Any]:
    return tiny.metadata(**changes)


READING = {"sr": tiny.SR, "window": tiny.WINDOW, "trim_db": 0.0}


SEEN = {**READING, "tta_speed": 0.1, "tta_shift": 0.01}


META: list[tuple[Any, str]] = [
    (None, "it was not exported by SAMO: it does not say what its outputs mean"),
    ("{", "its metadata cannot be read: Expecting property name"),
    ("[" * 100_000, "its metadata cannot be read: nested too deeply"),
    ("[]", "its metadata are no JSON object"),
    (json.dumps(of(pruned=float("nan"))), "its metadata cannot be read: a number is NaN"),
    (of(format="samo-onnx-3"), "it has the format samo-onnx-3, this version reads samo-onnx-1 and samo-onnx-2"),
    (of(format="x"), "its metadata are wrong: format: input should be 'samo-onnx-1' or 'samo-onnx-2'"),
    (of(format="samo-onnx-2"), "its metadata are wrong: reading: parts: field required"),
    (
        of(format="samo-onnx-2", reading={"parts": [READING], "window_s": 0.5}),
        "its metadata are wrong: reading: parts: tuple should have at least 2 items",
    ),
    (
        of(format="samo-onnx-2", reading={"parts": [READING] * 17, "window_s": 0.5}),
        "its metadata are wrong: reading: parts: tuple should have at most 16 items",
    ),
    (
        of(format="samo-onnx-2", reading={"parts": [READING] * 2, "window_s": 0.5}),
        "its inputs are waveform, lengths; a model has lengths.0, lengths.1, shares.0, shares.1, waveform.0",
    ),
    (
        of(format="samo-onnx-2", reading={"parts": [READING] * 2, "window_s": 1e-5}),
        "its metadata are wrong: reading: a piece of a long clip is shorter than a window",
    ),
    (
        of(format="samo-onnx-2", reading={"parts": [READING, {**READING, "window": 19}], "window_s": 0.5}),
        "its metadata are wrong: reading: a clip has more than 4,096 windows",
    ),
    (
        of(format="samo-onnx-2", reading={"parts": [READING, {**SEEN, "window": 97}], "window_s": 0.5}),
        "its metadata are wrong: reading: a clip has more than 4,096 windows",
    ),
    (of(modality="video"), "its metadata are wrong: modality: input should be 'audio' or 'text'"),
    (of(modality="text"), "its inputs are waveform, lengths; a model has ids, lengths"),
    (of(modality="text", reading=READING), "its metadata are wrong: reading: max_tokens: field required"),
    (of(label_space=[]), "its metadata are wrong: label_space: tasks need names of their own"),
    (
        of(label_space=[{"name": "a", "labels": ["x", "x"], "multi_label": False}]),
        "its metadata are wrong: label_space: task 'a' names a label twice",
    ),
    (
        of(label_space=[{"name": "a", "labels": ["x", "y"], "multi_label": False}]),
        "'logits' has a dimension of 3 where there are 2 labels",
    ),
    (of(decision={}), "its metadata are wrong: decision: "),
    (
        of(decision={"calibration": {**tiny.CALIBRATION, "temperature": {"emotion": 0.0}}}),
        "its metadata are wrong: decision: temperature.emotion: input should be greater than or equal to 0.001",
    ),
    (of(reading={**READING, "sr": 1}), "its metadata are wrong: reading: sr: input should be greater than"),
    (of(reading={**READING, "window": 1 << 40}), "its metadata are wrong: reading: window: input should be less than"),
    (of(reading={**READING, "window": 61 * tiny.SR}), "its metadata are wrong: reading: a window lasts over a minute"),
    (of(reading={**READING, "trim_db": "30"}), "its metadata are wrong: reading: trim_db: input should be"),
    (of(facts={}), "its metadata are wrong: facts.name: field required"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "line"), META)
def test_what_metadata_must_not_be(given: Any, line: str, tmp_path: Path) -> None:
    def without(model: onnx.ModelProto) -> None:
        if given is None:
            del model.metadata_props[:]

    text = given if isinstance(given, str) else json.dumps(given)
    found = refusal(tiny.write(tmp_path / "a.onnx", text=text, change=without))
    assert found.startswith(f"cannot use FILE: {line}")


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ({"kind": "sentencepiece"}, "kind: input should be 'hash' or 'tokenizers'"),
        ({"kind": "tokenizers", "tokenizer": "{}"}, "its tokenizer cannot be read: "),
        ({"kind": "tokenizers", "tokenizer": "[" * 100_000}, "its tokenizer cannot be read: "),
    ],
)
def test_what_a_tokenizer_must_not_be(tokens: dict[str, Any], line: str, tmp_path: Path) -> None:
    reading = {"max_tokens": 6, "pad_id": 0, "tokens": tokens}
    assert refusal(tiny.write(tmp_path / "a.onnx", "text", reading=reading)).startswith(f"cannot use FILE: {line}")


def test_what_is_no_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.onnx"
    assert refusal(path) == "there is no model file FILE"
    for content in (b"", b"RIFF" + bytes(100), b"\x80\x04pickle", b"\x00" * 64, b"PK\x03\x04", bytes(range(256))):
        path.write_bytes(content)
        assert refusal(path).startswith("cannot use FILE: it ")
    whole = tiny.write(path).read_bytes()
    for cut in range(1, len(whole), 97):
        path.write_bytes(whole[:cut])
        assert refusal(path).startswith("cannot use FILE: ")
    path.write_bytes(whole)
    monkeypatch.setattr(exported, "LARGEST", len(whole) - 1)
    assert refusal(path).startswith("cannot use FILE: it is larger than")


def is_refused(path: Path, modality: str) -> bool:
    """Whether a file is refused in one line; otherwise it answers, and its answer can be written."""
    message = ""
    try:
        model: Any = samo.load(path, threads=1)
        found = model.predict("one two") if modality == "text" else model.predict(WAVE, sr=tiny.SR)
        assert json.dumps(found.to_json())
        assert repr(model)
    except ModelFileError as error:
        message = error.message
    assert "\n" not in message
    return bool(message)


def damaged(whole: bytes, within: int, rng: random.Random) -> bytes:
    """The file with some of its first bytes changed, lost, put in or doubled."""
    body = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        how, place = rng.random(), rng.randrange(within)
        if how < 0.45:
            body[place] ^= 1 << rng.randrange(8)
        elif how < 0.75:
            body[place] = rng.choice([0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        elif how < 0.85:
            del body[place]
        elif how < 0.95:
            body.insert(place, rng.randrange(256))
        else:
            body[place:place] = body[place : place + rng.randrange(1, 40)]
    return bytes(body)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_damaged_files_answer_or_are_refused(modality: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny.write(tmp_path / "a.onnx", modality)
    whole, within = path.read_bytes(), len(tiny.network(modality).SerializeToString())
    refused = 0
    for seed in range(N):
        path.write_bytes(damaged(whole, within if seed % 5 else len(whole), random.Random(seed)))
        refused += is_refused(path, modality)
    assert 0.5 * N < refused < N
    assert capfd.readouterr() == ("", "")


ODD: list[Any] = [
    None, True, 0, -1, 1, 2**70, 0.5, -0.5, 1e300, "", "x", "\ud800", "emotion", [], {}, [None], [[1]], {"a": 1},
    {"emotion": 1}, {"emotion": []}, ["angry"], [0.1, 0.9, 5], 10**400,
]  # fmt: skip


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from places(each, (*place, key))


def changed(value: Any, rng: random.Random) -> Any:
    """The value with one place in it replaced, removed, or put in twice."""
    value = copy.deepcopy(value)
    *way, last = rng.choice([place for place in places(value) if place])
    inner = value
    for key in way:
        inner = inner[key]
    if rng.random() < 0.8:
        inner[last] = rng.choice(ODD)
    elif isinstance(inner, list) and rng.random() < 0.5:
        inner.append(inner[last])
    else:
        del inner[last]
    return value


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_edited_metadata_answer_or_are_refused(modality: str, tmp_path: Path) -> None:
    model = tiny.network(modality)
    entry = model.metadata_props.add()
    entry.key = "samo"
    path, refused = tmp_path / "a.onnx", 0
    for seed in range(N):
        rng = random.Random(seed)
        known = tiny.metadata(modality)
        for _ in range(rng.choice([1, 1, 2, 3])):
            known = changed(known, rng)
        entry.value = json.dumps(known)
        path.write_bytes(model.SerializeToString())
        refused += is_refused(path, modality)
    assert 0.3 * N < refused < N

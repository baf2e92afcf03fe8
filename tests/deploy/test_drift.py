"""Drift: lines are read or counted as broken, samples compared, sentences said, false alarms kept rare."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samo.deploy.drift import FEWEST, Drift, compare
from samo.deploy.prediction_lines import read_prediction_lines, since
from samo.deploy.samples import Sample, TaskSample, sample_of_lines, sample_of_reference
from samo.errors import DataError, ModelFileError, SettingsError
from samo.tasks import LabelSpace, Task

LABELS = ("angry", "happy", "sad")


def sample(
    n: int = 200,
    shares: tuple[float, ...] = (0.2, 0.3, 0.5),
    *,
    seed: int = 0,
    level: float = -23.0,
    length: float = 3.0,
    sure: float = 0.0,
    withheld: float = 0.1,
) -> Sample:
    """Answers as one distribution gives them."""
    rng = np.random.default_rng(seed)
    counts = dict(zip(LABELS, rng.multinomial(n, shares).tolist(), strict=True))
    task = TaskSample(counts, n, int(rng.binomial(n, withheld)), np.clip(rng.beta(4, 2, n) + sure, 0, 1))
    numbers = {"level_dbfs": rng.normal(level, 4.0, n), "duration_s": length * rng.gamma(9.0, 1 / 9, n)}
    return Sample(n, {"emotion": task}, numbers)


def says(found: Drift) -> list[str]:
    return [check.says for check in found.checks if check.drift]


def test_equal_samples_have_no_drift() -> None:
    found = compare(sample(), sample(seed=1))
    assert [check.quantity for check in found.checks] == [
        "labels of emotion", "confidence of emotion", "withheld of emotion", "input level", "clip length",
    ]  # fmt: skip
    assert not found.found
    assert says(found) == []
    assert all(check.p_corrected >= check.p for check in found.checks)


@pytest.mark.parametrize(
    ("how", "quantity", "starts"),
    [
        (
            {"level": -35.0},
            "input level",
            "the inputs are 12 dB quieter than what the model was validated on (median -3",
        ),
        ({"level": -11.0}, "input level", "the inputs are 12 dB louder than"),
        ({"length": 6.0}, "clip length", "the inputs are 2.1 times as long as what the model was validated on (median"),
        ({"shares": (0.6, 0.2, 0.2)}, "labels of emotion", "angry is answered "),
        ({"sure": -0.3}, "confidence of emotion", "the model is less sure (median confidence 0.41, 0.68 in"),
        ({"sure": 0.2}, "confidence of emotion", "the model is more sure"),
        ({"withheld": 0.4}, "withheld of emotion", '"not sure" is answered '),
    ],
)
def test_a_clear_shift_is_found_and_named(how: dict[str, Any], quantity: str, starts: str) -> None:
    found = compare(sample(300), sample(300, seed=1, **how))
    assert [check.quantity for check in found.checks if check.drift] == [quantity]
    assert says(found)[0].startswith(starts)


def test_three_times_as_often() -> None:
    before, now = sample(), sample()
    tasks = [
        {"emotion": TaskSample(counts, 200, 0, np.full(200, 0.5))}
        for counts in ({"angry": 20, "happy": 80, "sad": 100}, {"angry": 60, "happy": 60, "sad": 80})
    ]
    found = compare(Sample(200, tasks[0], before.numbers), Sample(200, tasks[1], now.numbers))
    (check,) = [each for each in found.checks if each.drift]
    assert (
        check.says
        == "angry is answered 3.0 times as often (30 % of the answers, 10 % in what the model was validated on)"
    )
    assert (check.before, check.now) == (0.1, 0.3)
    # Half of 0.2 + 0.1 + 0.1.
    assert check.effect == pytest.approx(0.2)
    assert check.divergence_bits == pytest.approx(0.0473, abs=1e-3)


def test_another_spread_around_the_same_middle() -> None:
    rng = np.random.default_rng(0)
    before, now = sample(400), sample(400)
    now = Sample(400, before.tasks, {**before.numbers, "level_dbfs": rng.normal(-23.0, 12.0, 400)})
    found = compare(before, now)
    assert "the input level is spread otherwise than in" in says(found)[0]
    assert "90 % lie in -4" in says(found)[0]


def test_what_is_no_chance_but_slight_is_no_drift() -> None:
    found = compare(sample(20_000), sample(20_000, seed=1, shares=(0.22, 0.3, 0.48)))
    (check,) = [each for each in found.checks if each.says]
    assert (check.quantity, check.drift, check.slight) == ("labels of emotion", False, True)
    assert not found.found


def test_labels_of_which_several_hold() -> None:
    def several(joy: int, fear: int) -> Sample:
        task = TaskSample({"joy": joy, "fear": fear, "grief": 0}, 200, 0, np.full(200, 0.5), multi_label=True)
        return Sample(200, {"emotions": task})

    found = compare(several(100, 40), several(100, 100))
    (check,) = [each for each in found.checks if each.drift]
    assert check.says.startswith("fear is answered 2.5 times as often (50 % of the answers, 20 % in")
    assert not compare(several(100, 40), several(104, 44)).found


def test_too_few_answers_say_so() -> None:
    for pair in ((sample(FEWEST - 1), sample()), (sample(), sample(FEWEST - 1))):
        found = compare(*pair)
        assert found.checks == ()
        assert not found.found
        assert "too few answers to tell: 29 in" in found.too_few
    assert compare(sample(FEWEST), sample(FEWEST)).checks


def test_other_tasks_are_another_model() -> None:
    task = TaskSample({"a": 40, "b": 60}, 100, 0, np.full(100, 0.5))
    with pytest.raises(DataError, match="the lines answer sentiment, the reference emotion"):
        compare(sample(), Sample(100, {"sentiment": task}))


def _reference(**values: Any) -> dict[str, Any]:
    task = {"counts": dict.fromkeys(LABELS, 20), "n": 60, "abstained": 0, "confidences": [0.5], "multi_label": False}
    task |= {name: values.pop(name) for name in list(values) if name in task}
    return {"n": 60, "tasks": {"emotion": task}, **values}


def _lines(tmp_path: Path, *lines: Any) -> Sample:
    return sample_of_lines(read_prediction_lines(write(tmp_path / "x.jsonl", *lines)).models["m"])


def test_labels_and_modalities_of_another_model_are_refused(tmp_path: Path) -> None:
    before = sample_of_reference(_reference(), "m", "audio")
    answer = {"label": "bored", "labels": ["bored"], "confidence": 0.5, "abstained": False}
    bored = _lines(tmp_path, *[line(tasks={"emotion": answer})] * 60)
    with pytest.raises(DataError, match="the lines answer emotion with bored, the reference with angry, happy, sad"):
        compare(before, bored)
    several = {**answer, "label": "sad", "labels": ["sad", "angry"]}
    with pytest.raises(DataError, match="the lines have several labels of emotion"):
        compare(before, _lines(tmp_path, *[line(tasks={"emotion": several})] * 60))
    text = _lines(tmp_path, *[line(modality="text")] * 60)
    with pytest.raises(DataError, match="the lines are answers to text, the reference is of audio"):
        compare(before, text)
    assert compare(before, _lines(tmp_path, *[line()] * 60)).checks
    # A file's first half names only what was answered there.
    assert compare(_lines(tmp_path, *[line()] * 60), bored).found


def test_hundreds_of_thousands_of_draws_have_an_end() -> None:
    many = TaskSample({f"l{k}": 1 for k in range(1001)}, 1001, 0, np.full(9, 0.5), multi_label=True)
    with pytest.raises(DataError, match="emotion has 1001 labels; at most 1000 are compared"):
        compare(Sample(1001, {"emotion": many}), Sample(1001, {"emotion": many}))


def test_a_long_line_ends_the_reading(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(json.dumps(line()).encode() + b"\n" + b" " * 10_000_001)
    with pytest.raises(DataError, match="x, line 2: longer than 10 MB"):
        read_prediction_lines(tmp_path / "x")


def test_without_drift_at_most_five_reports_in_a_hundred_find_some() -> None:
    """Any finding counts, slight ones too: 300 reports of 60 against 80 answers, five comparisons each."""
    found = [compare(sample(80, seed=2 * k), sample(60, seed=2 * k + 1), seed=k) for k in range(300)]
    assert np.mean([any(check.p_corrected < 0.05 for check in each.checks) for each in found]) <= 0.05


# Lines


def line(**values: Any) -> dict[str, Any]:
    return {
        "schema": 1, "time": "2026-11-26T10:00:00Z", "model": "m", "modality": "audio",
        "tasks": {"emotion": {"label": "sad", "labels": ["sad"], "confidence": 0.7, "abstained": False}},
        "duration_s": 3.2, "peak_dbfs": -6.1, "level_dbfs": -23.0, "warnings": [], **values,
    }  # fmt: skip


def write(path: Path, *lines: Any) -> Path:
    texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def test_lines_are_read(tmp_path: Path) -> None:
    text = line(model="t", modality="text", n_chars=12, n_tokens=None, duration_s=None, level_dbfs=None)
    found = read_prediction_lines(write(tmp_path / "x.jsonl", line(), text, b"", line(level_dbfs=-30)))
    assert {name: len(own) for name, own in found.models.items()} == {"m": 2, "t": 1}
    assert found.n_broken == 0
    assert found.models["m"][1].numbers == {"level_dbfs": -30.0, "duration_s": 3.2}
    assert found.models["t"][0].numbers == {"n_chars": 12.0}
    assert found.models["m"][0].time == datetime(2026, 11, 26, 10, tzinfo=UTC)
    got = sample_of_lines(found.models["m"])
    assert (got.n, got.tasks["emotion"].counts, got.tasks["emotion"].multi_label) == (2, {"sad": 2}, False)
    assert got.numbers["level_dbfs"].tolist() == [-23.0, -30.0]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (b"{", "Expecting"),
        (b"\xff\xfe", "codec"),
        (b"[1]", "valid dictionary"),
        (b"[" * 100, "delimiter|nested|Expecting"),
        (line(schema=2), "schema: input should be 1"),
        (line(time="yesterday"), "is no time of ISO 8601"),
        (line(tasks={}), "tasks: "),
        (line(tasks={"emotion": {"label": "x"}}), "tasks.emotion.labels: field required"),
        (line(level_dbfs="loud"), "level_dbfs: "),
        (b'{"schema": 1, "level_dbfs": NaN}', ": "),
        (line(modality="video"), "modality: "),
        (line(duration_s=-5.0), "duration_s: "),
        (line(level_dbfs=1e308), "level_dbfs: "),
        (
            line(tasks={"emotion": {"label": "a", "labels": ["a", "a"], "confidence": 0.5, "abstained": False}}),
            "tasks.emotion.labels: names a label twice",
        ),
    ],
)
def test_broken_lines_are_counted_and_named(tmp_path: Path, broken: Any, why: str) -> None:
    import re

    found = read_prediction_lines(write(tmp_path / "x.jsonl", line(), broken, line()))
    assert (len(found.models["m"]), found.n_broken) == (2, 1)
    assert found.broken[0].number == 2
    assert re.search(why, found.broken[0].why)


def test_files_without_answers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no answers"):
        read_prediction_lines(write(tmp_path / "x.jsonl", *[b"no"] * 15))
    with pytest.raises(DataError, match="it is empty"):
        read_prediction_lines(write(tmp_path / "x.jsonl"))
    with pytest.raises(DataError, match="No such file"):
        read_prediction_lines(tmp_path / "none")


def test_since(tmp_path: Path) -> None:
    times = ["2026-11-20T00:00:00Z", "2026-11-25T12:00:00+02:00", "2026-11-26T09:30:00", "2026-11-26T10:00:00Z"]
    lines = read_prediction_lines(write(tmp_path / "x", *[line(time=time) for time in times])).models["m"]
    for when, n in (
        ("2026-11-25", 3), ("2026-11-25T10:00", 3), ("2026-11-25T10:01", 2), ("30m", 2), ("29m", 1), ("1d", 3),
        ("24h", 3), ("999999999d", 4), ("2027-01-01", 0),
    ):  # fmt: skip
        assert len(since(lines, when)) == n, when
    with pytest.raises(SettingsError, match="`since=soon`"):
        since(lines, "soon")


def test_references_are_read_back_or_refused() -> None:
    stored: dict[str, Any] = {
        "n": 2, "part": "val", "level_dbfs": [-30.0, -20.0],
        "tasks": {
            "emotion": {"counts": {"sad": 2}, "n": 2, "abstained": 0, "confidences": [0.5, 0.6], "multi_label": False},
        },
    }  # fmt: skip
    found = sample_of_reference(stored, "m")
    assert (found.n, found.tasks["emotion"].counts, list(found.numbers)) == (2, {"sad": 2}, ["level_dbfs"])
    with pytest.raises(ModelFileError, match="nothing is known of what 'm' answered"):
        sample_of_reference({}, "m")
    for wrong in ({"n": -1}, {"tasks": []}, {"level_dbfs": ["x"]}, {"level_dbfs": [0.0] * 1001}, {"n": 1e3}):
        with pytest.raises(ModelFileError, match="the reference of 'm' is damaged: "):
            sample_of_reference({**stored, **wrong}, "m")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"abstained": 61}, "61 of 60 answers are withheld"),
        ({"counts": dict.fromkeys(LABELS, 21)}, "63 of 60 answers have labels"),
        ({"counts": {"angry": 61, "happy": 0, "sad": 0}, "multi_label": True}, "61 of 60 answers have labels"),
        ({"counts": dict.fromkeys(LABELS, 10**15)}, "less than 1000000000"),
        ({"duration_s": [-5.0]}, "duration_s.0: "),
        ({"level_dbfs": [1e308]}, "level_dbfs.0: "),
        ({"counts": {"angry": 1, "happy": 1, "bored": 1}}, "tasks.emotion: its labels are not the model's"),
        ({"multi_label": True}, "tasks.emotion: its labels are not the model's"),
        ({"n": 3, "counts": {}}, "answers are to emotion|not the model's"),
    ],
)
def test_hostile_references_are_refused(wrong: dict[str, Any], why: str) -> None:
    space = LabelSpace((Task("emotion", LABELS),))
    assert sample_of_reference(_reference(), "m", "audio", space).tasks["emotion"].complete
    with pytest.raises(ModelFileError, match=why):
        sample_of_reference(_reference(**wrong), "m", "audio", space)


def test_a_reference_of_almost_a_billion_items_is_compared() -> None:
    large = {"n": 999_999_999, "counts": dict.fromkeys(LABELS, 333_333_333), "confidences": [0.5] * 40}
    stored = _reference(**large)
    stored["n"] = 999_999_999
    found = compare(sample_of_reference(stored, "m"), sample())
    assert found.checks[0].p == pytest.approx(1e-4)

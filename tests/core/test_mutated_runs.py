"""Every file of a run, changed at random in thousands of ways: read as it is, or refused in one line; no crash."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from tiny_trainings import Stopping, interrupt

from samo.data.augmented import load_augmented
from samo.data.fingerprints import Fingerprints, near_copies
from samo.data.leaks import audit
from samo.errors import Interrupted, SamoError
from samo.evaluation.decision import decided_rows
from samo.evaluation.metrics import scores, tally
from samo.evaluation.predictions import Predictions
from samo.files import write_json
from samo.reporting.report import flat_items, metrics_of, read_report, reproduce_commands
from samo.reporting.wording import gain_line, members_line
from samo.runs import run_report
from samo.runs.artifacts import create_run
from samo.runs.calibrate import decision_of
from samo.runs.code import code_of
from samo.runs.ensemble_model import ensemble_facts
from samo.runs.evaluate import evaluate, evaluate_run
from samo.runs.load import facts_of, load_run_model, refuse_edited
from samo.runs.run import FINGERPRINTS, Run
from samo.runs.training import train_run
from samo.settings import toml_tables
from samo.training.checkpoint import load_checkpoint, load_fitted, load_tensors, read_about, save_model
from samo.training.setup import Setup
from samo.training.trainer import TrainState
from samo.training.training_log import epoch_line

# SAMO_MUTANTS=1000 tries that many of each file.
N = int(os.environ.get("SAMO_MUTANTS", "150"))
SETTINGS: dict[str, Any] = {
    "epochs": 3, "batch_size": 8, "lr": 0.05, "patience": 0, "hidden": 8, "ema_decay": 0.9, "extra": 2,
    "abstain_coverage": 0.8,
}  # fmt: skip
DEEP = "[" * 100_000
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**70, 10**400, 0.5, -0.5, 1e300, -1e300, 1e-300, float("nan"), float("inf"),
    "", "x", "\ud800", "emotion", [], {}, [None], [[1]], {"a": 1}, {"emotion": 1}, {"emotion": []}, ["angry"],
    [0.1, 0.9, 5],
]  # fmt: skip
ENSEMBLE = {
    "combine": "mean", "weights": "equal", "fitted_on": None, "best_member": "a", "mean_of_members": 0.5, "level": 0.95,
    "members": [
        {"name": n, "weight": 0.5, "temperature": {"emotion": 1.5}, "val_macro_f1": 0.5, "macro_f1": 0.5, "interval": i}
        for n, i in (("a", [0.1, 0.9]), ("b", None))
    ],
    "left_out": [{"name": "c", "reason": "broken"}],
    "ensemble": {"val_macro_f1": 0.5, "macro_f1": 0.5, "interval": None},
    "gain": {"difference": 0.1, "low": -0.1, "high": 0.3, "p": 0.2, "verdict": "may be luck"},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with every file a run can have, but for those of an ensemble."""
    root = tmp_path_factory.mktemp("artifacts")
    run = create_run(root, "mine", "tiny")
    setup = Setup(tiny.frontend(tiny.BOTH, **SETTINGS), tiny.RUNTIME)
    train_run(run, setup, tiny.Silent(), "samo train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_report, "save_figures", lambda *_: [])
        evaluate_run(run, setup, "test")
    words = [(name, np.arange(k, k + 9, dtype=np.uint32), np.arange(9)) for k, name in enumerate("abc")]
    Fingerprints.of("tiny", 10.0, words).save(run.path(FINGERPRINTS), pairs=True)
    write_json(run.path("ensemble.json"), ENSEMBLE)
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy that may be written into."""
    shutil.copytree(trained.folder, tmp_path / "runs" / "mine")
    return Run(tmp_path / "runs" / "mine")


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of a value of dicts and lists, itself among them."""
    yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield from places(each, (*place, key))


def changed(value: Any, rng: random.Random, odd: list[Any]) -> Any:
    """The value with one place in it replaced, removed, renamed, or put in twice."""
    value = copy.deepcopy(value)
    *way, last = rng.choice([place for place in places(value) if place] or [(None,)])
    if last is None:
        return rng.choice(odd)
    inner = value
    for key in way:
        inner = inner[key]
    how = rng.random()
    if how < 0.7:
        inner[last] = rng.choice(odd)
    elif how < 0.85:
        del inner[last]
    elif isinstance(inner, list):
        inner.append(inner[last])
    else:
        inner[rng.choice(["x", "", "schema", "emotion"])] = inner.pop(last)
    return value


def changed_text(text: str, rng: random.Random) -> str:
    """A JSON text, or one a line, with one value in it changed; sometimes cut, or with another beginning."""
    how = rng.random()
    if how < 0.03:
        return rng.choice([DEEP, '{"a":' * 100_000, "", "null", "3", "\x00", '"' + text])
    if how < 0.06:
        return text[: rng.randrange(len(text))]
    lines = [text] if text.startswith("{\n") else text.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = json.dumps(changed(json.loads(lines[number]), rng, ODD))
    return "\n".join(lines) + "\n"


def refused_at_most(act: Callable[[], object]) -> bool:
    """Whether it was refused with an error that is meant for people."""
    message = None
    try:
        act()
    except SamoError as error:
        message = error.message
    assert message is None or (message.strip() and "\n" not in message)
    return message is not None


def reads_settings(run: Run) -> None:
    tiny.TinyConfig.build(run.flat_settings)


def reads_manifest(run: Run) -> None:
    manifest = run.manifest
    assert np.isfinite(manifest.targets[~np.isnan(manifest.targets)]).all()
    assert manifest.digest
    audit(manifest, run.split)
    manifest.rows(run.split.train)


def reads_history(run: Run) -> None:
    for row in run.history:
        epoch_line(row, 9)


def reads_trained(run: Run) -> None:
    assert f"{run.trained.get('val_macro_f1', 0.0):.3f}"


def reads_environment(run: Run) -> None:
    code_of(run)
    flat_items(run.environment)
    reproduce_commands({"split": "test", "run": run.name}, run.environment)
    str(facts_of(run))


def reads_report(run: Run) -> None:
    str(facts_of(run))
    report = read_report(run.path("report.json"))
    assert f"{metrics_of(report)['macro_f1']:.3f} {report['ci']['unit']} {report['n'] + 1} {report['synthetic']}"


def answers(run: Run) -> None:
    network, space = load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    with torch.inference_mode():
        logits = network(torch.ones(2, tiny.N_FEATURES), torch.ones(2)).numpy()
    decision = decision_of(run, space)
    probabilities, present = decision.answers(logits, space)
    assert np.isfinite(probabilities).all()
    decision.abstained(probabilities, present, space)
    str(facts_of(run))


def reads_ensemble(run: Run) -> None:
    if facts := ensemble_facts(run):
        members_line(facts)
        gain_line(facts)


READERS: dict[str, Callable[[Run], object]] = {
    "config.json": reads_settings,
    "manifest.jsonl": reads_manifest,
    "split.json": reads_manifest,
    "history.jsonl": reads_history,
    "trained.json": reads_trained,
    "environment.json": reads_environment,
    "openings.jsonl": lambda run: run.test_openings + 1,
    "report.json": reads_report,
    "calibration.json": answers,
    "thresholds.json": answers,
    "abstention.json": answers,
    "augmentation.json": lambda run: load_augmented(run.folder),
    "augmented.jsonl": lambda run: load_augmented(run.folder),
    "ensemble.json": reads_ensemble,
}


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused(run: Run, name: str) -> None:
    rng, text = random.Random(name), run.path(name).read_text()
    READERS[name](run)
    n_refused = 0
    for _ in range(N):
        mutant = changed_text(text, rng)
        run.path(name).write_text(mutant, errors="surrogatepass")
        fresh = Run(run.folder)
        try:
            n_refused += refused_at_most(lambda fresh=fresh: READERS[name](fresh))  # type: ignore[misc]
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}; from {mutant[:3000]}") from error
    assert n_refused > N // 20


@pytest.mark.parametrize("name", ["config.json", "manifest.jsonl", "report.json", "calibration.json"])
def test_a_hundred_thousand_brackets(run: Run, name: str) -> None:
    for text in (DEEP, '{"a":' * 100_000, '{"modality": ' + DEEP + "]" * 100_000 + "}"):
        run.path(name).write_text(text)
        assert refused_at_most(lambda: READERS[name](Run(run.folder)))


def test_a_hundred_thousand_brackets_in_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f"lr = {DEEP}")
    assert refused_at_most(lambda: toml_tables(tmp_path / "c.toml", "configuration"))


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_changed_header_of_the_model(run: Run, ensemble: bool) -> None:
    rng, tensors = random.Random(1), load_tensors(run.model_file)
    about = {name: value for name, value in read_about(run.model_file).items() if name != "format"}
    if ensemble:
        settings = dict(run.flat_settings)
        member = {
            "name": "a", "weight": 0.5, "temperature": {"emotion": 1.0},
            "thresholds": {"tags": [0.5, 0.4, 0.3]}, "settings": settings,
        }  # fmt: skip
        about["ensemble"] = {"combine": "vote", "members": [member, member]}
        tensors = {f"members.{k}.{name}": tensor for k in (0, 1) for name, tensor in tensors.items()}
        about["epoch"] = 0
    save_model(run.model_file, tensors, **about)
    answers(run)
    n_refused = 0
    for _ in range(N):
        mutant = changed(about, rng, ODD)
        save_model(run.model_file, tensors, **mutant)
        try:
            n_refused += refused_at_most(lambda: answers(Run(run.folder)))
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}; from {json.dumps(mutant)[:3000]}") from error
    assert n_refused > N // 10


def test_no_bit_of_a_model_changes_unseen(run: Run) -> None:
    rng, data = random.Random(7), run.model_file.read_bytes()
    answers(run)
    seen = 0
    for _ in range(N):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        run.model_file.write_bytes(flipped)
        seen += refused_at_most(lambda: load_run_model(Run(run.folder), tiny.TinyFrontend, tiny.RUNTIME))
    assert seen == N


def test_a_run_with_an_edited_configuration_does_not_answer(run: Run) -> None:
    stored = json.loads(run.path("config.json").read_text())
    write_json(run.path("config.json"), {**stored, "lr": 0.5})
    for ask in (
        lambda: load_run_model(Run(run.folder), tiny.TinyFrontend, tiny.RUNTIME),
        lambda: evaluate(Run(run.folder)),
    ):
        with pytest.raises(SamoError, match=r"was edited since the run was begun: `lr` 0\.05 is now 0\.5$"):
            ask()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_do_not_answer(run: Run, value: float) -> None:
    about = {name: value for name, value in read_about(run.model_file).items() if name != "format"}
    tensors = load_tensors(run.model_file)
    tensors["head.bias"][1] = value
    save_model(run.model_file, tensors, **about)
    with pytest.raises(SamoError, match=r"best_model\.safetensors holds NaN or infinity at: head\.bias"):
        load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)


def some_tensor(rng: random.Random, tensor: torch.Tensor) -> Any:
    """Another tensor in place of one: of another shape, kind, layout or content."""
    return rng.choice([
        lambda: torch.zeros(1), lambda: torch.zeros(()), lambda: torch.zeros(0), lambda: torch.zeros(1000),
        lambda: tensor[None], lambda: tensor.flatten()[:1], lambda: tensor.flatten()[:1].expand(tensor.shape),
        lambda: tensor.long(), lambda: tensor.to(torch.complex64), lambda: tensor.double(), lambda: tensor.bool(),
        lambda: torch.full_like(tensor, float("nan")), lambda: torch.full_like(tensor, -1.0),
        lambda: torch.full_like(tensor, float("inf")), lambda: tensor.to_sparse(), lambda: tensor.T.contiguous().T,
        lambda: tensor.tolist(), lambda: None, lambda: "x", lambda: 3, lambda: torch.zeros(2, 3, dtype=torch.int8),
    ])()  # fmt: skip


def changed_state(state: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    state = copy.deepcopy(state)
    if rng.random() < 0.5:
        tables = [state["model"], state["ema"]["average"], *state["optimizer"]["state"].values()]
        table = rng.choice(tables)
        name = rng.choice(list(table))
        tensor = table[name] if table[name].is_floating_point() and table[name].ndim == 2 else torch.ones(3, 2)
        table[name] = some_tensor(rng, tensor)
        return state
    made: dict[str, Any] = changed(state, rng, ODD)
    return made


def one_step(state: TrainState) -> None:
    """What the next step does with the state."""
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    assert state.ema is not None
    state.ema.update(state.model)
    assert state.epoch == len(state.history)
    assert all(tensor.isfinite().all() for tensor in state.eval_weights().values())


def test_a_changed_checkpoint_never_reaches_the_optimiser(run: Run) -> None:
    rng, stored = random.Random(2), load_checkpoint(run.path("last.ckpt"))
    front = tiny.frontend(tiny.BOTH, **SETTINGS)
    n_refused = 0
    for number in range(2 * N):
        state, _ = tiny.begin(front)
        mutant = changed_state(stored, rng) if number else stored
        try:
            state.load_state_dict(mutant)
            one_step(state)
        except (ValueError, SamoError):
            n_refused += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}; from {str(mutant)[:5000]}") from error
    assert N // 2 < n_refused < 2 * N


def test_moments_are_those_of_their_parameters(run: Run) -> None:
    """Memory behind a moment of one number would be written as far as the parameter reaches."""
    stored = load_checkpoint(run.path("last.ckpt"))
    for name, tensor in (("exp_avg", torch.zeros(1)), ("exp_avg_sq", torch.zeros(1000)), ("step", torch.zeros(3))):
        mutant = copy.deepcopy(stored)
        mutant["optimizer"]["state"][0][name] = tensor
        state, _ = tiny.begin(tiny.frontend(tiny.BOTH, **SETTINGS))
        with pytest.raises(ValueError, match=f"{name} of parameter 0 does not fit the parameter"):
            state.load_state_dict(mutant)
    # One number spread over a shape has that shape and one place in memory.
    parameter = next(iter(state.optimizer.param_groups[0]["params"]))
    spread = copy.deepcopy(stored)
    spread["optimizer"]["state"][0]["exp_avg"] = torch.ones(1).expand(parameter.shape)
    state.load_state_dict(spread)
    moment = state.optimizer.state[parameter]["exp_avg"]
    assert moment.stride() == parameter.stride()
    assert moment.untyped_storage().nbytes() == 4 * parameter.numel()


def test_a_bit_that_fell_over_in_the_checkpoint_is_seen(run: Run) -> None:
    rng, path = random.Random(3), run.path("last.ckpt")
    data, whole = path.read_bytes(), load_checkpoint(path)
    n_refused = 0
    for _ in range(N // 2):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert str(load_checkpoint(path)) == str(whole)  # in the padding between its parts
        except SamoError:
            n_refused += 1
    # Each tensor of this one is padded to 64 bytes.
    assert n_refused > N // 8
    place = data.index(whole["model"]["head.weight"].numpy().tobytes())
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(SamoError, match="has another checksum than when it was written"):
        load_checkpoint(path)


ARRAYS: list[Callable[[np.ndarray], Any]] = [
    lambda array: np.atleast_1d(array)[:-1],
    lambda array: np.atleast_1d(array)[::-1],
    lambda array: array[None],
    lambda array: array.astype("U"),
    lambda array: np.zeros(()),
    lambda array: np.zeros((0, 0)),
    lambda array: np.array("x"),
    lambda array: np.zeros(array.shape, dtype=np.int8),
    lambda array: np.full(array.shape, 3, dtype=np.uint32),
    lambda array: np.full(array.shape, -1),
    lambda array: np.full(array.shape, 2**62),
    lambda array: np.full(array.shape, np.nan),
]


@pytest.mark.parametrize("name", ["predictions.test.npz", FINGERPRINTS])
def test_changed_arrays(run: Run, name: str) -> None:
    rng, path = random.Random(name), run.path(name)
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored}
    data, space = path.read_bytes(), run.manifest.label_space

    def reads() -> None:
        if name == FINGERPRINTS:
            prints = run.fingerprints
            assert prints is not None
            near_copies(prints, prints)
            _ = prints.pairs, prints.only(prints.ids[:1])
        else:
            predictions = Predictions.load(path, space)
            found = decided_rows(space.primary, predictions, space)
            scores(tally(found.truth, found.predicted))

    reads()
    n_refused = 0
    for number in range(N):
        if number % 3:
            mutant, key = dict(arrays), rng.choice(list(arrays))
            how = rng.choice([*ARRAYS, None])
            if how:
                mutant[key] = how(mutant[key])
            else:
                del mutant[key]
            np.savez_compressed(path, **mutant)
        else:
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
        n_refused += refused_at_most(reads)
    assert n_refused > N // 10


def test_a_changed_file_of_what_was_fitted(run: Run) -> None:
    rng, path = random.Random(4), run.path("fitted.safetensors")
    data, model = path.read_bytes(), tiny.frontend(tiny.BOTH, **SETTINGS).new_model()

    def reads() -> None:
        refuse_edited(Run(run.folder))
        load_fitted(path, model)

    reads()
    for _ in range(N):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        refused_at_most(reads)


def test_an_edited_configuration_is_not_gone_on_with(tmp_path: Path) -> None:
    run = create_run(tmp_path, "mine", "tiny")
    with pytest.raises(Interrupted):
        train_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), Stopping(interrupt))
    stored = json.loads(run.path("config.json").read_text())
    write_json(run.path("config.json"), {**stored, "lr": 0.5, "data_root": "/moved"})
    with pytest.raises(SamoError, match=r"was edited since the run was begun: `lr` 0\.05 is now 0\.5$"):
        refuse_edited(Run(run.folder))
    write_json(run.path("config.json"), {**stored, "data_root": "/moved", "added_later": 1})
    refuse_edited(Run(run.folder))

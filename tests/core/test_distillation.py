"""Learning from teachers: the loss by hand, whose answers count, which teachers are refused, and exact resuming."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from torch import Tensor

from samo.data.splits import make_split
from samo.encoders.logreg import out_of_fold_logits
from samo.errors import Interrupted, LeakError, ModelFileError, RunError, SettingsError
from samo.evaluation.calibration import apply_temperature
from samo.runs import teachers
from samo.runs.calibrate import decision_of
from samo.runs.load import load_run_model
from samo.runs.provenance import Learned, learned_by
from samo.runs.run import Run
from samo.runs.teachers import checked_teachers, taught_probabilities
from samo.runs.training import resume_training, train_run
from samo.settings import LossSettings
from samo.tasks import LabelSpace
from samo.training.checkpoint import load_tensors, read_about, save_model
from samo.training.losses import EmotionLoss, loss_of
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

ONE, SEVERAL = LabelSpace((tiny.EMOTION,)), LabelSpace((tiny.TAGS,))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAMO_ARTIFACTS", str(tmp_path))


def trained(root: Path, name: str, space: LabelSpace | None = None, windows: int = 1, **settings: Any) -> Run:
    front = tiny.frontend(space, windows, **{**tiny.QUICK, **settings})
    run = Run(root / "runs" / name)
    train_run(run, Setup(front, tiny.RUNTIME), tiny.Silent())
    return run


def weights_of(run: Run) -> dict[str, Tensor]:
    return load_tensors(run.model_file)


# The loss


def criterion(space: LabelSpace, **settings: Any) -> EmotionLoss:
    given = LossSettings(teacher="some", **settings)
    return EmotionLoss(space, given, np.zeros((1, space.n_columns), dtype=np.float32))


def test_the_divergence_is_that_of_hinton_and_others_by_hand() -> None:
    loss = criterion(ONE, distil_alpha=0.25, distil_temperature=2.0)
    logits = torch.tensor([[2.0 * math.log(4.0), 2.0 * math.log(2.0), 0.0]])
    targets, taught = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    # Softened the student has 4, 2 and 1 of 7; unsoftened 16, 4 and 1 of 21.
    apart = 0.5 * math.log(0.5 / (4 / 7)) + 0.5 * math.log(0.5 / (2 / 7))
    hard = -math.log(16 / 21)
    assert loss(logits, targets, taught).item() == pytest.approx(0.75 * hard + 0.25 * 4.0 * apart, rel=1e-5)
    assert loss(logits, targets).item() == pytest.approx(hard, rel=1e-5)
    # A student that answers as its teacher has no divergence.
    same = torch.tensor([[4 / 7, 2 / 7, 1 / 7]])
    assert loss(logits, targets, same).item() == pytest.approx(0.75 * hard, abs=1e-5)


def test_several_labels_have_the_mean_of_binary_divergences() -> None:
    loss = criterion(SEVERAL, distil_alpha=1.0, distil_temperature=2.0)
    logits = torch.tensor([[2.0 * math.log(3.0), 0.0, 0.0]])
    taught = torch.tensor([[0.5, 1.0, 0.5]])
    first = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    expected = 4.0 * (first + math.log(2.0) + 0.0) / 3
    assert loss(logits, torch.ones(1, 3), taught).item() == pytest.approx(expected, rel=1e-5)


def test_rows_and_tasks_without_an_answer_keep_their_labels_and_those_without_a_label_the_answer() -> None:
    loss = criterion(tiny.BOTH, distil_alpha=0.5, distil_temperature=1.0)
    nan = float("nan")
    logits = torch.zeros(3, 6, requires_grad=True)
    targets = torch.tensor([[1.0, 0, 0, 1, 0, 0], [1.0, 0, 0, nan, nan, nan], [nan, nan, nan, 1, 0, 0]])
    taught = torch.tensor([[nan] * 6, [1.0, 0, 0, 1, 1, 1], [1.0, 0, 0, nan, nan, nan]])
    found = loss.per_row(logits, targets, taught)
    three, two = math.log(3.0), math.log(2.0)
    expected = [three + two, 0.5 * three + 0.5 * three + 0.5 * two, 0.5 * three + two]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    extreme = torch.tensor([[1e4, -1e4, 0.0, 1e4, -1e4, 0.0]], requires_grad=True)
    value = loss(extreme, targets[:1], torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0, 0.5]]))
    value.backward()
    assert value.isfinite()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


def test_samples_under_dropout_are_averaged_and_task_weights_count() -> None:
    logits, targets = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)), torch.full((4, 6), float("nan"))
    taught = tiny_probabilities(4)
    both = criterion(tiny.BOTH).per_row(logits, targets, taught)
    each = [criterion(tiny.BOTH).per_row(one, targets, taught) for one in logits]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    doubled = criterion(tiny.BOTH, task_weights={"emotion": 2.0, "tags": 2.0}).per_row(logits, targets, taught)
    torch.testing.assert_close(doubled, 2.0 * both)


def tiny_probabilities(n: int) -> Tensor:
    scores = np.random.default_rng(0).normal(size=(n, 6))
    return torch.from_numpy(tiny.BOTH.probabilities(scores).astype(np.float32))


def test_both_passes_of_r_drop_have_the_teacher() -> None:
    logits, taught = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), tiny_probabilities(4)
    targets = torch.zeros(4, 6)
    targets[:, 0] = 1.0
    loss = criterion(tiny.BOTH)
    found = loss_of(lambda: logits, loss, targets, rdrop=0.5, taught=taught)
    torch.testing.assert_close(found, loss(logits, targets, taught))
    assert found != loss(logits, targets)


# Whose answers


def test_a_teacher_answers_as_in_evaluation_under_its_own_temperature(tmp_path: Path) -> None:
    first = trained(tmp_path, "first", hidden=8)
    second = trained(tmp_path, "second", windows=3, lr=0.02)
    student = tiny.frontend(**tiny.QUICK, teacher="first,second", distil_temperature=3.0)
    split = make_split(student.manifest, student.split_request())
    rows = student.manifest.rows(split.train)
    runs = checked_teachers(student.config.loss, tmp_path, "tiny", student.manifest, split)
    assert [run.name for run in runs] == ["first", "second"]
    found = taught_probabilities(runs, student, rows, tiny.RUNTIME)
    expected = np.zeros((len(rows), 3))
    for run in (first, second):
        model, space = load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
        raw = predict_logits(model, Setup(student, tiny.RUNTIME), rows)
        temperature = decision_of(run, space).calibration.temperature
        assert temperature["emotion"] != 1.0
        expected += space.probabilities(apply_temperature(raw, temperature, space) / 3.0) / 2
    np.testing.assert_allclose(found[rows], expected, atol=1e-5)
    others = np.setdiff1d(np.arange(len(found)), rows)
    assert np.isnan(found[others]).all()


def test_answers_are_computed_once_and_anew_for_another_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, "first")
    student, rows = tiny.frontend(**tiny.QUICK, teacher="first"), np.arange(8)
    calls = []
    real = teachers.predict_logits
    monkeypatch.setattr(teachers, "predict_logits", lambda *a: calls.append(1) or real(*a))
    first = taught_probabilities([run], student, rows, tiny.RUNTIME)
    hotter = tiny.frontend(**tiny.QUICK, teacher="first", distil_temperature=9.0)
    taught_probabilities([run], hotter, rows, tiny.RUNTIME)
    assert len(calls) == 1
    other = trained(tmp_path, "other", lr=0.5)
    assert not np.allclose(taught_probabilities([other], student, rows, tiny.RUNTIME)[:8], first[:8])
    taught_probabilities([run], student, rows[:4], tiny.RUNTIME)
    assert len(calls) == 3
    for path in (tmp_path / "cache" / "teachers").iterdir():
        path.write_bytes(b"damaged")
    assert np.array_equal(taught_probabilities([run], student, rows, tiny.RUNTIME)[:8], first[:8])
    # The same run with other weights is another teacher.
    run.model_file.write_bytes(other.model_file.read_bytes())
    assert not np.allclose(taught_probabilities([run], student, rows, tiny.RUNTIME)[:8], first[:8])


def test_out_of_fold_answers_come_from_models_without_the_speaker(tmp_path: Path) -> None:
    run = trained(tmp_path, "first")
    student = tiny.frontend(**tiny.QUICK, teacher="first", distil_out_of_fold=True, distil_temperature=1.0)
    rows = np.arange(32)
    found = taught_probabilities([run], student, rows, tiny.RUNTIME)[rows]
    groups = [student.manifest.items[row].group for row in rows]
    logits = out_of_fold_logits(student.features[rows], student.manifest.targets[rows], ONE, groups=groups)
    np.testing.assert_allclose(found, ONE.probabilities(logits), atol=1e-6)
    with pytest.raises(SettingsError, match="`distil_out_of_fold`: teacher 'deep' is not found in closed form"):
        taught_probabilities([trained(tmp_path, "deep", hidden=4)], student, rows, tiny.RUNTIME)


# The settings act


def test_every_setting_changes_what_is_learned(tmp_path: Path) -> None:
    trained(tmp_path, "first", lr=0.2, epochs=8)
    trained(tmp_path, "second", lr=0.01)
    given: dict[str, dict[str, Any]] = {
        "alone": {},
        "taught": {"teacher": "first"},
        "by-another": {"teacher": "second"},
        "by-both": {"teacher": "first,second"},
        "hotter": {"teacher": "first", "distil_temperature": 8.0},
        "more": {"teacher": "first", "distil_alpha": 0.9},
        "anew": {"teacher": "first", "distil_out_of_fold": True},
    }
    found = {name: weights_of(trained(tmp_path, name, **values))["head.weight"] for name, values in given.items()}
    for name, weight in found.items():
        for other, second in found.items():
            assert name == other or not torch.allclose(weight, second, atol=1e-5), (name, other)
    for name in ("distil_temperature", "distil_alpha", "distil_out_of_fold"):
        with pytest.raises(SettingsError, match=f"`{name}` acts only together with `teacher`"):
            tiny.frontend(**{name: 1.0 if name != "distil_out_of_fold" else True})


def test_a_teacher_alone_is_enough_to_learn_from(tmp_path: Path) -> None:
    trained(tmp_path, "first", lr=0.2, epochs=8)
    front = tiny.frontend(**{**tiny.QUICK, "epochs": 20, "teacher": "first", "distil_alpha": 1.0})
    run = Run(tmp_path / "runs" / "taught")
    train_run(run, Setup(front, tiny.RUNTIME), tiny.Silent())
    assert run.trained["val_macro_f1"] > 0.6


def test_a_training_with_made_items_and_mixup_resumes_exactly(tmp_path: Path) -> None:
    trained(tmp_path, "first", hidden=8)
    rich = {**tiny.RICH, "extra": 4, "teacher": "first", "rdrop_alpha": 0.5}
    whole = trained(tmp_path, "whole", **rich)
    setup = Setup(tiny.frontend(**rich), tiny.RUNTIME)
    run = Run(tmp_path / "runs" / "stopped")
    with pytest.raises(Interrupted):
        train_run(run, setup, tiny.Recorder(lambda epoch, step: (epoch, step) == (2, 2)))
    # Whatever becomes of the teacher.
    trained_again = tmp_path / "runs" / "first" / "best_model.safetensors"
    trained_again.unlink()
    resume_training(run, Setup(tiny.frontend(**rich), tiny.RUNTIME), tiny.Silent())
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(run)[name]), name
    taught = load_tensors(run.path("taught.safetensors"))["probabilities"]
    n = len(setup.frontend.manifest.items)
    assert len(taught) == n + 4
    assert taught[n:].isfinite().all()


# Which teachers


def folds(root: Path, name: str = "cv", **settings: Any) -> Path:
    grid = root / "grids" / name
    for fold in range(2):
        front = tiny.frontend(**{**tiny.QUICK, "split": "folds", "fold": fold, **settings})
        run = Run(grid / "runs" / f"seed0.fold{fold}")
        train_run(run, Setup(front, tiny.RUNTIME), tiny.Silent())
    return grid


def test_of_a_cross_validation_the_run_of_the_same_training_part_teaches(tmp_path: Path) -> None:
    grid = folds(tmp_path)
    for fold in range(2):
        front = tiny.frontend(**tiny.QUICK, split="folds", fold=fold, teacher="cv")
        split = make_split(front.manifest, front.split_request())
        for root, teacher in ((tmp_path, "cv"), (tmp_path / "grids" / "student", "cv"), (tmp_path / "x", str(grid))):
            settings = front.config.loss.model_copy(update={"teacher": teacher})
            [run] = checked_teachers(settings, root, "tiny", front.manifest, split)
            assert run.name == f"seed0.fold{fold}"
        other = front.config.loss.model_copy(update={"teacher": f"cv/seed0.fold{1 - fold}"})
        with pytest.raises(LeakError, match=f"`teacher` of run 'seed0.fold{1 - fold}' learned from the validation"):
            checked_teachers(other, tmp_path, "tiny", front.manifest, split)
    front = tiny.frontend(**tiny.QUICK, split="folds", fold=2, teacher="cv")
    split = make_split(front.manifest, front.split_request())
    with pytest.raises(RunError, match=r"none of the 2 runs of .* learned from exactly this training part"):
        checked_teachers(front.config.loss, tmp_path, "tiny", front.manifest, split)


def test_a_teacher_that_knows_the_test_speakers_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    first = trained(tmp_path, "first")
    relearned(first, leaking(first))
    run = Run(tmp_path / "runs" / "student")
    front = tiny.frontend(**tiny.QUICK, teacher="first")
    with pytest.raises(LeakError, match="`teacher` of run 'first' learned from the validation or test part") as caught:
        train_run(run, Setup(front, tiny.RUNTIME), tiny.Silent())
    assert "train both on one split" in caught.value.hint
    assert not run.path("config.json").exists()
    # What is fitted anew on the student's own training part knows nothing but its start weights.
    anew = tiny.frontend(**tiny.QUICK, teacher="first", distil_out_of_fold=True)
    train_run(run, Setup(anew, tiny.RUNTIME), tiny.Silent())


def leaking(run: Run) -> Learned:
    """A training on the run's training and test part."""
    split = run.split
    return Learned.of(run.manifest, replace(split, train=split.train + split.test, test=split.val))


def relearned(run: Run, *learned: Learned) -> None:
    """Let a run's model say that it learned from something else."""
    about = read_about(run.model_file)
    facts = {name: value for name, value in about.items() if name not in ("format", "learned")}
    save_model(run.model_file, load_tensors(run.model_file), **facts, learned=[each.to_json() for each in learned])


def test_a_teacher_of_the_teacher_counts(tmp_path: Path) -> None:
    first, second = trained(tmp_path, "first"), trained(tmp_path, "second", teacher="first")
    assert learned_by(second) == (*learned_by(first), *learned_by(first))
    third = trained(tmp_path, "third", teacher="second")
    assert len(learned_by(third)) == 3
    relearned(second, learned_by(second)[0], leaking(first))
    with pytest.raises(LeakError, match="`teacher` of run 'second' learned from"):
        trained(tmp_path, "fourth", teacher="second")
    anew = trained(tmp_path, "fifth", teacher="first", distil_out_of_fold=True)
    assert len(learned_by(anew)) == 1


def test_start_weights_of_a_teacher_that_is_fitted_anew_count(tmp_path: Path) -> None:
    """Fitting it anew begins at them again."""
    first, second = trained(tmp_path, "first"), trained(tmp_path, "second")
    own, elsewhere = learned_by(second)[0], replace(learned_by(first)[0], dataset="elsewhere")
    relearned(second, leaking(second), elsewhere)
    anew = trained(tmp_path, "third", teacher="second", distil_out_of_fold=True)
    assert [each.dataset for each in learned_by(anew)] == ["tiny", "elsewhere"]
    relearned(second, own, leaking(first))
    with pytest.raises(LeakError, match="`teacher` of run 'second' learned from the validation or test part"):
        trained(tmp_path, "fourth", teacher="second", distil_out_of_fold=True)
    assert not (tmp_path / "runs" / "fourth" / "config.json").exists()


def test_answers_under_other_groups_are_other_answers(tmp_path: Path) -> None:
    run, rows = trained(tmp_path, "first"), np.arange(32)
    student = tiny.frontend(**tiny.QUICK, teacher="first", distil_out_of_fold=True)
    first = taught_probabilities([run], student, rows, tiny.RUNTIME)[rows]
    manifest = student.manifest
    items = tuple(replace(item, group=f"p{row % 5}") for row, item in enumerate(manifest.items))
    other = student.with_manifest(replace(manifest, items=items))
    assert other.manifest.digest == manifest.digest
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teachers, "_opened", lambda *_: calls.append(1) or other)
        assert not np.allclose(taught_probabilities([run], other, rows, tiny.RUNTIME)[rows], first)
        assert np.array_equal(taught_probabilities([run], student, rows, tiny.RUNTIME)[rows], first)
    assert calls == [1]


def test_what_is_no_teacher_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path, "first")
    student = tiny.frontend(tiny.BOTH, **tiny.QUICK, teacher="first")
    with pytest.raises(SettingsError, match="'first' answers another question: emotion: angry, happy, sad"):
        taught_probabilities([run], student, np.arange(4), tiny.RUNTIME)
    split = run.split
    with pytest.raises(SettingsError, match="'first' is of modality tiny, this run of text"):
        checked_teachers(student.config.loss, tmp_path, "text", student.manifest, split)
    with pytest.raises(RunError, match="there is no run 'frist'"):
        checked_teachers(LossSettings(teacher="frist"), tmp_path, "tiny", student.manifest, split)
    run.model_file.unlink()
    with pytest.raises(ModelFileError, match="`teacher` 'first' has no model"):
        checked_teachers(student.config.loss, tmp_path, "tiny", student.manifest, split)

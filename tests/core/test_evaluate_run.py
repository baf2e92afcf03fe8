"""Judging a run: on its own corpus only if the data are the same, elsewhere only with labels it knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
from edited_runs import trained_with

from samo.data.manifest import Item, Manifest
from samo.data.relabel import relabel
from samo.errors import DataError, LeakError, RunError, SettingsError
from samo.evaluation.calibration import fit_temperature
from samo.evaluation.metrics import selection_score
from samo.evaluation.predictions import Predictions
from samo.runs import evaluate as evaluation
from samo.runs import kept_predictions, run_report
from samo.runs.artifacts import create_run
from samo.runs.calibrate import calibrate
from samo.runs.cross_corpus import evaluate_corpus
from samo.runs.evaluate import evaluate_run
from samo.runs.load import facts_of
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.tasks import LabelSpace, Task
from samo.training.checkpoint import load_tensors, read_about, save_model
from samo.training.setup import Setup

SETTINGS: dict[str, Any] = {"epochs": 12, "batch_size": 8, "lr": 0.05, "patience": 0}
FOREIGN = LabelSpace((Task("feeling", ("anger", "joy", "sad", "boredom")),))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = create_run(tmp_path_factory.mktemp("artifacts"), "mine", "tiny")
    train_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), tiny.Silent())
    return run


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and test_report sees to it."""
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """A copy that may be written into."""
    shutil.copytree(trained.folder, tmp_path / "runs" / "mine")
    return Run(tmp_path / "runs" / "mine")


def foreign(labels: Mapping[str, str], n: int = 24) -> tiny.TinyFrontend:
    """The same voices in another corpus, whose classes have other names; ``labels`` maps ours to theirs."""
    front = tiny.frontend(**SETTINGS)
    items = tuple(
        replace(item, labels={"feeling": (labels[item.labels["emotion"][0]],)}, content=f"other{item.id}")
        for item in front.manifest.items[:n]
    )
    front.manifest = Manifest("other", FOREIGN, items, Path("/other"), synthetic=True)
    return front


THEIRS = {"angry": "anger", "happy": "joy", "sad": "sad"}
MAPPING = {"anger": "angry", "joy": "happy", "boredom": "-"}


@pytest.mark.usefixtures("drawn_pictures")
def test_judging_the_test_part(run: Run) -> None:
    front = tiny.frontend(**SETTINGS)
    report = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    split = run.split
    assert report == json.loads(run.path("report.json").read_text())
    assert (report["run"], report["dataset"], report["split"], report["split_rule"]) == (
        "mine",
        "tiny",
        "test",
        "speaker",
    )
    assert (report["n"], report["leaky"], report["synthetic"]) == (len(split.test), False, False)
    assert report["labels"] == ["angry", "happy", "sad"]
    assert report["val_macro_f1"] == pytest.approx(max(row["val_macro_f1"] for row in run.history))
    predictions = Predictions.load(run.path("predictions.test.npz"))
    assert predictions.ids == split.test
    space = front.manifest.label_space
    assert report["metrics"]["macro_f1"] == pytest.approx(
        selection_score(space, predictions.logits, predictions.targets)
    )
    np.testing.assert_array_equal(predictions.targets, front.manifest.targets[front.manifest.rows(split.test)])
    assert set(predictions.groups) == {name for name in predictions.groups if name.startswith("s")}
    assert set(predictions.meta) == {"gender"}
    assert list(run.path("figures").glob("*.png"))
    for name in ("report.html", "MODEL_CARD.md", "predictions.train.npz", "predictions.val.npz"):
        assert run.path(name).stat().st_size > 0
    assert run.status == "evaluated"


def answered_with(run: Run) -> float:
    """The temperature in ``calibration.json``."""
    value: float = json.loads(run.path("calibration.json").read_text())["temperature"]["emotion"]
    return value


@pytest.mark.usefixtures("without_pictures")
def test_the_temperature_of_the_run_is_the_one_it_is_judged_with(run: Run) -> None:
    front = tiny.frontend(**SETTINGS)
    kept = run.path("calibration.json").read_text()
    report = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    predictions = Predictions.load(run.path("predictions.val.npz"))
    fitted = fit_temperature(predictions.logits, predictions.targets, front.manifest.label_space)
    assert report["calibration"]["temperature"] == answered_with(run) == pytest.approx(fitted["emotion"], rel=1e-6)
    assert report["calibration"]["temperature"] != 1.0
    assert report["calibration"]["fitted_on"] == "val"
    assert evaluate_run(run, Setup(front, tiny.RUNTIME), "test") == report
    assert run.path("calibration.json").read_text() == kept
    # The file is what counts, and it changes no label.
    run.path("calibration.json").write_text(kept.replace(str(answered_with(run)), "5.0"))
    other = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert other["calibration"]["temperature"] == 5.0
    assert other["calibration"]["nll_uncalibrated"] == report["calibration"]["nll_uncalibrated"]
    assert other["calibration"]["nll"] != report["calibration"]["nll"]
    assert (other["metrics"], other["confusion"]) == (report["metrics"], report["confusion"])
    np.testing.assert_array_equal(Predictions.load(run.path("predictions.val.npz")).logits, predictions.logits)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("stale", [False, True], ids=["none", "of other weights"])
def test_judging_fits_the_temperature_that_is_missing(run: Run, stale: bool) -> None:
    kept = json.loads(run.path("calibration.json").read_text())
    run.path("calibration.json").unlink()
    if stale:
        other = {**kept, "temperature": {"emotion": 7.0}, "epoch": kept["epoch"] + 1}
        run.path("calibration.json").write_text(json.dumps(other))
    report = evaluate_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), "test")
    assert json.loads(run.path("calibration.json").read_text()) == kept
    assert report["calibration"]["temperature"] == kept["temperature"]["emotion"]


def test_a_damaged_calibration_is_named(run: Run) -> None:
    run.path("calibration.json").write_text("{")
    with pytest.raises(RunError, match=r"calibration\.json") as caught:
        evaluate_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), "test")
    assert caught.value.hint == "remove it; `samo evaluate` fits the temperature again"


@pytest.mark.usefixtures("without_pictures")
def test_judging_another_part_leaves_the_report_alone(run: Run) -> None:
    report = evaluate_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), "val")
    assert report["split"] == "val"
    assert report["n"] == len(run.split.val)
    assert run.path("report.val.json").exists()
    assert not run.path("report.json").exists()
    assert not run.path("predictions.test.npz").exists()
    assert run.status == "trained"


@pytest.mark.usefixtures("without_pictures")
def test_a_leaky_run_is_stamped(tmp_path: Path) -> None:
    run = create_run(tmp_path, "leaky", "tiny")
    front = tiny.frontend(**{**SETTINGS, "epochs": 1}, split="random")
    train_run(run, Setup(front, tiny.RUNTIME), tiny.Silent())
    report = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert report["leaky"] is True
    assert any("leak: speaker s0 is in more than one part: clip" in line for line in report["warnings"])


def test_other_data_are_refused(run: Run) -> None:
    front = tiny.frontend(**SETTINGS)
    front.manifest = replace(front.manifest, items=front.manifest.items[:-1])
    with pytest.raises(RunError, match="the data differ from those run 'mine' was trained on"):
        evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert not run.path("predictions.test.npz").exists()


def test_a_split_that_was_tampered_with_is_refused(run: Run) -> None:
    split = run.split
    replace(split, train=(*split.train, split.test[0])).save(run.path("split.json"))
    with pytest.raises(LeakError, match="the speaker split leaks"):
        evaluate_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), "test")


def test_relabel() -> None:
    own = tiny.frontend().manifest.label_space
    front = foreign({"angry": "anger", "happy": "boredom", "sad": "sad"})
    mapped = relabel(front.manifest, own, {"anger": "happy", "joy": "-", "boredom": "-"})
    assert mapped.label_space == own
    assert (mapped.dataset, mapped.synthetic) == ("other", True)
    before = [item.labels["feeling"][0] for item in front.manifest.items]
    after = [item.labels.get("emotion", ("-",))[0] for item in mapped.items]
    assert after == [{"anger": "happy", "boredom": "-", "sad": "sad"}[label] for label in before]
    assert all(item.labels == {} for item, label in zip(mapped.items, after, strict=True) if label == "-")
    assert mapped.targets.shape == (24, 3)


def test_relabel_merges_labels_of_one_item() -> None:
    space = LabelSpace((Task("tags", ("a", "b"), multi_label=True),))
    manifest = Manifest("m", space, (replace(tiny.corpus()[0].items[0], labels={"tags": ("a", "b")}),), Path("/x"))
    assert relabel(manifest, tiny.corpus()[0].label_space, {"a": "sad", "b": "sad"}).items[0].labels == {
        "emotion": ("sad",)
    }


@pytest.mark.parametrize(
    ("mapping", "kind", "message", "hint"),
    [
        (
            {**MAPPING, "angre": "angry"},
            SettingsError,
            "`label_map`: the corpus has no class 'angre'",
            "did you mean 'anger'? valid: anger, joy, sad, boredom",
        ),
        (
            {**MAPPING, "joy": "hapy"},
            SettingsError,
            "`label_map`: the run has no class 'hapy'",
            "did you mean 'happy'? valid: angry, happy, sad, -",
        ),
        (
            {"joy": "happy"},
            DataError,
            "the run does not know these classes of the corpus: anger, boredom",
            "`label_map=joy=happy,anger=angry,boredom=-`, where x=- leaves x out; the run's classes: angry, happy, sad",
        ),
    ],
)
def test_relabel_errors(mapping: dict[str, str], kind: type[Exception], message: str, hint: str) -> None:
    with pytest.raises(kind) as caught:
        relabel(foreign(THEIRS).manifest, tiny.corpus()[0].label_space, mapping)
    assert (caught.value.message, caught.value.hint) == (message, hint)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("word", "label"),
    [("anger", "angry"), ("SADNESS", "sad"), ("Happiness", "happy"), ("sadly angry", "sad"), ("joy", "-")],
)
def test_the_label_most_alike_is_suggested(word: str, label: str) -> None:
    manifest = replace(tiny.corpus()[0], label_space=LabelSpace((Task("feeling", (word, "angry")),)))
    with pytest.raises(DataError) as caught:
        relabel(manifest, tiny.corpus()[0].label_space, {})
    pair = f"{word}={label}"
    assert caught.value.hint.startswith(f"`label_map={pair}`, where")


@pytest.mark.usefixtures("without_pictures")
def test_another_precision_than_in_training_is_said(run: Run) -> None:
    front, words = tiny.frontend(**SETTINGS), "validation macro-F1 of training was measured in bf16, here in float32"
    assert words not in evaluate_run(run, Setup(front, tiny.RUNTIME), "test")["warnings"]
    seen = run.environment
    seen["runtime"]["precision"] = "bf16"
    run.path("environment.json").write_text(json.dumps(seen))
    assert words in evaluate_run(run, Setup(front, tiny.RUNTIME), "test")["warnings"]


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("real", [False, True])
def test_a_model_of_synthetic_data_judged_on_real_ones(run: Run, real: bool) -> None:
    own = run.path("manifest.jsonl")
    own.write_text(own.read_text().replace('"synthetic": false', '"synthetic": true', 1))
    front = foreign(THEIRS)
    front.manifest = replace(front.manifest, synthetic=not real)
    report = evaluate_corpus(run, Setup(front, tiny.RUNTIME), MAPPING)
    assert (report["synthetic"], report["synthetic_model_only"]) == (True, real)


@pytest.mark.usefixtures("without_pictures")
def test_judging_elsewhere(run: Run) -> None:
    front = foreign(THEIRS)
    report = evaluate_corpus(run, Setup(front, tiny.RUNTIME), MAPPING)
    assert report == json.loads(run.path("report.other.json").read_text())
    assert (report["dataset"], report["split"], report["n"]) == ("other", "all", 24)
    assert report["label_map"] == MAPPING
    assert report["synthetic"] is True
    assert report["metrics"]["macro_f1"] > 0.6
    assert not run.path("report.json").exists()


@pytest.mark.usefixtures("without_pictures")
def test_judging_elsewhere_has_the_temperature_of_home(run: Run) -> None:
    front = foreign(THEIRS)
    words = "no temperature: judge the run on its own corpus first, which fits it"
    report = evaluate_corpus(run, Setup(front, tiny.RUNTIME), MAPPING)
    assert report["calibration"]["temperature"] == answered_with(run)
    assert words not in report["warnings"]
    run.path("calibration.json").unlink()
    bare = evaluate_corpus(run, Setup(front, tiny.RUNTIME), MAPPING)
    assert (bare["calibration"]["temperature"], bare["calibration"]["fitted_on"]) == (1.0, None)
    assert words in bare["warnings"]
    assert bare["metrics"] == report["metrics"]
    assert not run.path("calibration.json").exists()


def test_judging_elsewhere_on_what_was_trained_on(run: Run) -> None:
    front = foreign(THEIRS)
    seen = run.manifest.items[run.manifest.row_of[run.split.val[0]]]
    items = (*front.manifest.items[:-1], replace(front.manifest.items[-1], content=seen.content))
    front.manifest = replace(front.manifest, items=items)
    with pytest.raises(LeakError, match=r"recordings the run was trained on are in this corpus: clip023\.wav"):
        evaluate_corpus(run, Setup(front, tiny.RUNTIME), MAPPING)


@pytest.mark.usefixtures("without_pictures")
def test_openings_of_the_test_part_are_counted_and_shown(run: Run) -> None:
    front, line = tiny.frontend(**SETTINGS), "the test part was opened {} times with this run"
    assert run.test_openings == 0
    evaluate_run(run, Setup(front, tiny.RUNTIME), "val")
    assert run.test_openings == 0
    first = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert (run.test_openings, first.openings) == (1, 1)
    assert "opened" not in repr(first) + first.page.read_text() + run.path("MODEL_CARD.md").read_text()
    second = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert second == first
    assert (run.test_openings, second.openings) == (2, 2)
    assert "items, opened 2 times)" in repr(second)
    assert line.format(2) in second.page.read_text()
    assert line.format(2) in run.path("MODEL_CARD.md").read_text()
    assert any("; opened 2 times" in score for score in facts_of(run).scores)
    # Another part, and what was judged before openings were counted.
    assert evaluate_run(run, Setup(front, tiny.RUNTIME), "val").openings == 0
    run.path("openings.jsonl").unlink()
    assert run.test_openings == 1
    assert evaluate_run(run, Setup(front, tiny.RUNTIME), "test").openings == 2


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(("dataset", "leaky"), [("other", False), ("tiny", True)])
def test_other_clips_of_the_speakers_of_training(run: Run, dataset: str, leaky: bool) -> None:
    front = foreign(THEIRS)
    front.manifest = replace(front.manifest, dataset=dataset)
    report = evaluate_corpus(run, Setup(front, tiny.RUNTIME), MAPPING)
    assert report["leaky"] is leaky
    assert any("speakers are called like speakers the run was trained on" in line for line in report["warnings"])


def of_texts(run: Run, n_known: int, spelled: str) -> Any:
    """Another corpus of 24 texts of which ``n_known`` stand in the run's training part, in another spelling."""
    texts = ["".join(chr(0x4E00 + 40 * k + place) for place in range(40)) for k in range(300)]
    trained = run.manifest
    items = tuple(replace(item, source=texts[k]) for k, item in enumerate(trained.items))
    replace(trained, items=items, copies="reported").save(run.path("manifest.jsonl"))
    front = foreign(THEIRS)
    rows = list(trained.rows(run.split.train))[:n_known] + list(range(200, 224 - n_known))
    theirs = tuple(
        replace(item, source=spelled.format(texts[row]), content=f"own {row}")
        for row, item in zip(rows, front.manifest.items, strict=True)
    )
    front.manifest = replace(front.manifest, items=theirs, copies="reported")
    return front


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("spelled", ["{}", "{}!!", "  {}\n", "{} x"])
def test_texts_of_training_are_known_elsewhere_in_any_spelling(run: Run, spelled: str) -> None:
    before = run.path("manifest.jsonl").read_bytes()
    for n_known, leaky in ((1, False), (2, True), (4, True)):
        run.path("manifest.jsonl").write_bytes(before)
        report = evaluate_corpus(run, Setup(of_texts(run, n_known, spelled), tiny.RUNTIME), MAPPING)
        line = f"leak: {n_known} of 24 texts also stand in what the run was trained on, word for word or nearly so"
        assert line in report["warnings"]
        assert report["leaky"] is leaky
    for n_known in (5, 12):
        run.path("manifest.jsonl").write_bytes(before)
        with pytest.raises(LeakError, match=f"the run was trained on {n_known} of 24 rows, word for word or nearly so"):
            evaluate_corpus(run, Setup(of_texts(run, n_known, spelled), tiny.RUNTIME), MAPPING)


@pytest.mark.usefixtures("without_pictures")
def test_items_that_were_never_hashed_are_no_copies_of_each_other(run: Run) -> None:
    trained = run.manifest
    replace(trained, items=tuple(replace(item, content="") for item in trained.items)).save(run.path("manifest.jsonl"))
    front = foreign(THEIRS)
    bare = tuple(replace(item, content="") for item in front.manifest.items)
    front.manifest = replace(front.manifest, items=bare)
    assert evaluate_corpus(run, Setup(front, tiny.RUNTIME), MAPPING)["n"] == 24


def test_a_mapping_that_leaves_nothing(run: Run) -> None:
    front = foreign(THEIRS)
    nothing = dict.fromkeys(FOREIGN.primary.labels, "-")
    with pytest.raises(DataError, match="no item of the corpus is left to judge on"):
        evaluate_corpus(run, Setup(front, tiny.RUNTIME), nothing)


def test_classes_that_were_balanced_twice_stand_in_the_report(run: Run, without_pictures: None) -> None:
    setup = Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME)
    for twice in (False, True):
        trained_with(run.folder, balanced_sampler=False, joint_alpha=0.5, class_weight_loss=twice)
        warnings = evaluate_run(Run(run.folder), setup, "test")["warnings"]
        assert any("classes are balanced twice: `joint_alpha`" in line for line in warnings) == twice


@pytest.mark.usefixtures("without_pictures")
def test_a_leaky_run_is_stamped_elsewhere_too(run: Run) -> None:
    assert evaluate_corpus(run, Setup(foreign(THEIRS), tiny.RUNTIME), MAPPING)["leaky"] is False
    replace(run.split, rule="random").save(run.path("split.json"))
    assert evaluate_corpus(run, Setup(foreign(THEIRS), tiny.RUNTIME), MAPPING)["leaky"] is True


def test_of_several_labels_a_run_that_gives_one_is_judged_on_single_ones() -> None:
    """GoEmotions beside a run of one label: items with several of its labels are counted and left out."""
    space = LabelSpace((Task("emotion", ("a", "b", "c"), multi_label=True),))
    given = (("a",), ("a", "b"), ("b", "c"), (), ("c",))
    items = tuple(Item(f"i{k}", f"t{k}", {"emotion": labels}) for k, labels in enumerate(given))
    manifest = Manifest("other", space, items, Path("/data"))
    own = LabelSpace((Task("mood", ("a", "b")),))
    mapped = relabel(manifest, own, {"c": "-"})
    assert [dict(item.labels) for item in mapped.items] == [{"mood": ("a",)}, {}, {"mood": ("b",)}, {}, {}]
    assert mapped.notes == (
        "1 of 5 items hold several of the run's labels and were left out: the run gives one to each",
    )
    both = relabel(manifest, LabelSpace((Task("mood", ("a", "b"), multi_label=True),)), {"c": "-"})
    assert both.items[1].labels == {"mood": ("a", "b")}
    assert both.notes == ()


def retrained(run: Run, seed: int) -> None:
    """Other weights of the same epoch, as a training that goes on or one with ``overwrite`` leaves them."""
    about = read_about(run.model_file)
    tensors = {name: tensor + 0.01 * seed for name, tensor in load_tensors(run.model_file).items()}
    save_model(run.model_file, tensors, **{name: value for name, value in about.items() if name != "format"})


@pytest.fixture
def predicted_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the model was asked for."""
    counts: list[int] = []
    before = kept_predictions.predict_logits

    def counted(model: Any, setup: Setup, rows: np.ndarray) -> np.ndarray:
        counts.append(len(rows))
        return before(model, setup, rows)

    monkeypatch.setattr(kept_predictions, "predict_logits", counted)
    return counts


def test_a_second_evaluation_predicts_nothing_again(
    run: Run, predicted_rows: list[int], monkeypatch: pytest.MonkeyPatch, without_pictures: None
) -> None:
    setup, split = Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), run.split
    first = evaluate_run(run, setup, "test")
    assert sorted(predicted_rows) == sorted(map(len, (split.train, split.val, split.test)))
    predicted_rows.clear()
    written = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.suffix in (".json", ".npz")}
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "load_run_model", None)  # the network is not even opened
        assert evaluate_run(run, setup, "test") == first
        assert evaluate_run(run, setup, "val")["split"] == "val"
    assert predicted_rows == []
    assert run.test_openings == 2
    assert written == {name: run.path(name).read_bytes() for name in written}


@pytest.mark.parametrize(
    ("changed", "n_parts"),
    [
        ("weights", 3), ("settings", 3), ("precision", 3), ("torch", 3), ("code of SAMO", 3), ("assets", 3),
        ("one file is gone", 1), ("one file is damaged", 1), ("one file has other rows", 1), ("code outside SAMO", 3),
    ],
)  # fmt: skip
def test_what_an_evaluation_before_kept_is_used_for_the_very_same_only(
    changed: str, n_parts: int, run: Run, predicted_rows: list[int], monkeypatch: pytest.MonkeyPatch,
    without_pictures: None,
) -> None:  # fmt: skip
    setup = Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME)
    evaluate_run(run, setup, "test")
    predicted_rows.clear()
    train = run.path("predictions.train.npz")
    match changed:
        case "weights":
            retrained(run, 1)
        case "settings":
            setup = Setup(tiny.frontend(**{**SETTINGS, "lr": 0.04}), tiny.RUNTIME)
        case "precision":
            setup = replace(setup, runtime=replace(tiny.RUNTIME, precision="bf16"))
        case "torch":
            monkeypatch.setattr(kept_predictions.torch, "__version__", "2.0.0")
        case "code of SAMO":
            monkeypatch.setattr(kept_predictions, "_sources", lambda kind: [Path(__file__)])
        case "assets":
            run.path("assets").mkdir()
            run.path("assets").joinpath("words.txt").write_text("a")
        case "code outside SAMO":
            monkeypatch.setattr(kept_predictions, "code_of", lambda run: {"model": {"name": "my_net:tiny"}})
        case "one file is gone":
            train.unlink()
        case "one file is damaged":
            train.write_bytes(train.read_bytes()[:-30])
        case "one file has other rows":
            shutil.copy(run.path("predictions.val.npz"), train)
    evaluate_run(run, setup, "test")
    assert len(predicted_rows) == n_parts


def test_another_corpus_is_predicted_once(run: Run, predicted_rows: list[int], without_pictures: None) -> None:
    setup = Setup(foreign({"angry": "anger", "happy": "joy", "sad": "boredom"}), tiny.RUNTIME)
    evaluate_corpus(run, setup, {"anger": "angry", "joy": "happy", "boredom": "sad"})
    evaluate_corpus(run, setup, {"anger": "angry", "joy": "happy", "boredom": "sad"})
    assert len(predicted_rows) == 1
    # Another mapping leaves other rows.
    evaluate_corpus(run, setup, MAPPING)
    assert len(predicted_rows) == 2
    # Other recordings under the same names.
    setup.frontend.manifest = setup.frontend.manifest.with_content(
        {item.id: f"new{item.id}" for item in setup.frontend.manifest.items}
    )
    evaluate_corpus(run, setup, MAPPING)
    assert len(predicted_rows) == 3


@pytest.mark.parametrize("when", ["while it predicts", "while pictures are drawn"])
def test_nothing_is_written_of_a_model_that_is_gone(
    run: Run, when: str, monkeypatch: pytest.MonkeyPatch, without_pictures: None
) -> None:
    run.path("calibration.json").unlink()
    evaluate_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), "test")
    run.path("report.json").unlink()
    run.path("calibration.json").unlink()
    for path in run.folder.glob("predictions.*.npz"):
        Predictions.load(path).save(path)  # as evaluations before kept them: predicted again
    written = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.suffix in (".json", ".npz")}
    places = {
        "while it predicts": (kept_predictions, "predict_logits"),
        "while pictures are drawn": (run_report, "save_figures"),
    }
    module, name = places[when]
    before = getattr(module, name)

    def trained_on(*given: Any) -> Any:
        retrained(run, 1)
        return before(*given)

    monkeypatch.setattr(module, name, trained_on)
    with pytest.raises(RunError, match="run 'mine' got another model while it was evaluated; this evaluation was not"):
        evaluate_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), "test")
    left = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.suffix in (".json", ".npz")}
    left.pop("calibration.json", None)  # fitted before the pictures, and for the weights there were
    assert left == written


def test_a_model_that_was_only_touched_is_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch, without_pictures: None
) -> None:
    before = kept_predictions.predict_logits

    def touched(*given: Any) -> Any:
        retrained(run, 0)
        return before(*given)

    monkeypatch.setattr(kept_predictions, "predict_logits", touched)
    evaluate_run(run, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), "test")
    assert run.status == "evaluated"


def test_a_temperature_names_the_epoch_whose_answers_it_was_fitted_on(run: Run) -> None:
    front = tiny.frontend(**SETTINGS)
    logits = np.zeros((len(front.manifest.items), 3), dtype=np.float32)
    about = read_about(run.model_file)
    assert calibrate(run, front.manifest.label_space, logits, front.manifest.targets, epoch=7).calibration.epoch == 7
    assert (
        calibrate(run, front.manifest.label_space, logits, front.manifest.targets).calibration.epoch == about["epoch"]
    )

"""A network and a corpus of one's own, as docs/adding.md has them: run from the page, trusted only where named."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tone_corpora import SMALL, Result, done, pitch, read_json, refused, samo, stop_after, tone

import samo as samo_package
from samo import plugins
from samo.errors import RunError

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "adding.md"
MODULES = ("my_net", "my_corpus", "my_text_net", "my_diary")
NET, VOICES = "my_net:tiny", "my_corpus:Voices"
# What the page leaves out, so that a training takes a second.
QUICK = {
    "audio": [*SMALL, "--width", "4", "--epochs", "2"],
    "text": [
        "--embedding-width",
        "8",
        "--hash-buckets",
        "512",
        "--epochs",
        "8",
        "--lr",
        "0.1",
        "--batch-size",
        "8",
        "--threads",
        "1",
    ],
}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(block: str) -> list[list[str]]:
    return [shlex.split(line)[2:] for line in block.splitlines()]


def forget() -> None:
    """As if the process had just begun."""
    plugins._trusted.clear()
    for name in MODULES:
        sys.modules.pop(name, None)


def fresh(*argv: object) -> Result:
    """A command of its own, that must succeed."""
    forget()
    return done(*argv)


def fails(status: int, *argv: object) -> str:
    """A command of its own, that must leave with a status and one error line; returns the line."""
    forget()
    return refused(status, *argv)


def fill(here: Path) -> None:
    """Write the page's files and small data; a module that is imported leaves a file ``ran``."""
    for block in blocks("python"):
        if named := re.match(r"# (\w+\.py)\n", block):
            (here / named[1]).write_text(f"open('{named[1]}.ran', 'w').close()\n{block}")
    for row, label in enumerate(("angry", "happy", "sad")):
        for speaker in range(6):
            for take in range(2):
                tone(here / "voices" / f"{label}_spk{speaker}_{take}.wav", pitch(row, speaker))
    words = {"good": ("sun", "cake", "friends"), "bad": ("rain", "bills", "cough")}
    days = [f"{mood}\tday {k} with {words[mood][k % 3]} and {words[mood][k % 2]}" for k in range(60) for mood in words]
    (here / "diary").mkdir()
    (here / "diary" / "diary.tsv").write_text("\n".join(days) + "\n")


@pytest.fixture
def work(artifacts: Path) -> Iterator[Path]:
    """The working directory with the page's files and data."""
    here = Path.cwd()
    fill(here)
    before = list(sys.path)
    yield here
    forget()
    sys.path[:] = before


def imported(work: Path) -> set[str]:
    """The modules imported since the last question."""
    found = {path.name.removesuffix(".py.ran") for path in work.glob("*.ran")}
    for path in work.glob("*.ran"):
        path.unlink()
    return found


@pytest.fixture(scope="module")
def page_run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The artifacts with run ``mine``, trained once as the page says; to copy."""
    here, before = tmp_path_factory.mktemp("page"), list(sys.path)
    fill(here)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("SAMO_CACHE", str(cache))
        for name in ("SAMO_DATA_ROOT", "SAMO_TEXT_DATA_ROOT", "SAMO_ARTIFACTS"):
            patch.delenv(name, raising=False)
        fresh(*commands(blocks("console")[0])[0], *QUICK["audio"])
    assert imported(here) == {"my_net", "my_corpus"}
    forget()
    sys.path[:] = before
    return here / "artifacts"


@pytest.fixture
def mine(page_run: Path, work: Path) -> Path:
    """The folder of a copy of run ``mine`` in this test's own artifacts."""
    shutil.copytree(page_run, work / "artifacts", symlinks=True)
    return work / "artifacts" / "runs" / "mine"


@pytest.mark.slow
def test_the_page_on_speech(mine: Path, work: Path) -> None:
    _, evaluate, predict = commands(blocks("console")[0])
    report = fresh(*evaluate, "--threads", "1", "--json").json
    assert report["dataset"] == "voices"
    assert imported(work) == {"my_net", "my_corpus"}
    printed = fresh(*predict, "--threads", "1", "--json").json
    assert len(printed["predictions"]) == 36
    assert set(printed["predictions"][0]["probabilities"]) == {"angry", "happy", "sad"}
    assert imported(work) == {"my_net"}
    assert read_json(mine / "config.json")["model"] == NET
    manifest = (mine / "manifest.jsonl").read_text().splitlines()
    assert '"group": "spk0"' in manifest[1]


@pytest.mark.slow
def test_the_page_on_text(work: Path) -> None:
    train, evaluate, predict = commands(blocks("console")[1])
    fresh(*train, *QUICK["text"])
    report = fresh(*evaluate, "--threads", "1", "--json").json
    assert report["dataset"] == "diary"
    assert report["metrics"]["macro_f1"] == 1.0
    (answer,) = fresh(*predict, "--threads", "1", "--json").json["predictions"]
    assert set(answer["tasks"]["mood"]["probabilities"]) == {"bad", "good"}
    line = fails(5, "evaluate", "words")
    assert "run 'words' needs my_text_net:bag and my_diary:Diary, code that does not come with SAMO" in line
    # Texts are hashed for a corpus that does not.
    item = (work / "artifacts" / "runs" / "words" / "manifest.jsonl").read_text().splitlines()[1]
    assert re.search(r'"content": "[0-9a-f]{64}"', item)


def test_the_error_on_the_page_is_the_real_one(mine: Path, work: Path) -> None:
    assert fails(5, "evaluate", "mine") == blocks("text")[0].strip()
    assert imported(work) == set()


@pytest.mark.parametrize(
    ("argv", "needed"),
    [
        (("predict", "voices", "--run", "mine"), NET),
        (("evaluate", "mine", "--trust-code", NET), VOICES),
        (("evaluate", "mine", "--trust-code", VOICES), NET),
        (("evaluate", "mine", "--trust-code", "my_net:other," + VOICES), NET),
        (("train", "--resume", "mine", f"--trust-code={NET}"), VOICES),
        # The corpus is named, the network is not.
        (("evaluate", "mine", "--dataset", VOICES, "--data-root", "voices"), NET),
    ],
)  # fmt: skip
def test_what_nobody_named_is_not_imported(argv: tuple[str, ...], needed: str, mine: Path, work: Path) -> None:
    line = fails(5, *argv)
    assert line.startswith(f"error: run 'mine' needs {needed}, code that does not come with SAMO (hint: ")
    assert line.endswith(f"give --trust-code {needed})")
    assert imported(work) == set()
    assert not set(MODULES) & set(sys.modules)


def test_the_run_remembers_the_code_and_a_changed_file_is_noted(mine: Path, work: Path) -> None:
    code = read_json(mine / "environment.json")["code"]
    assert {setting: (fact["module"], fact["attribute"]) for setting, fact in code.items()} == {
        "model": ("my_net", "tiny"),
        "dataset": ("my_corpus", "Voices"),
    }
    assert code["model"]["distribution"] == ""
    assert code["model"]["sha256"] == hashlib.sha256((work / "my_net.py").read_bytes()).hexdigest()
    (row,) = fresh("runs", "--json").json["runs"]
    assert row["code"] == [NET, VOICES]
    assert NET in fresh("runs").out
    assert imported(work) == set()
    predict = ("predict", "voices", "--run", "mine", "--threads", "1", "--json", "--trust-code", NET)
    assert "changed" not in fresh(*predict).err
    with (work / "my_net.py").open("a") as file:
        file.write("# another word\n")
    assert "the code of my_net:tiny changed since run mine was trained" in fresh(*predict).err


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_its_code(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 1, KeyboardInterrupt())
    forget()
    train = commands(blocks("console")[0])[0]
    assert samo(*train, *QUICK["audio"]).status == 130
    assert "needs my_net:tiny and my_corpus:Voices" in fails(5, "train", "--resume", "mine")
    fresh("train", "--resume", "mine", "--threads", "1", "--trust-code", NET, "--trust-code", VOICES)
    assert len((work / "artifacts" / "runs" / "mine" / "history.jsonl").read_text().splitlines()) == 2


def test_the_page_in_a_notebook(mine: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    with pytest.raises(RunError, match="run 'mine' needs my_net:tiny, code that does not come with SAMO"):
        samo_package.load("mine")
    with pytest.raises(RunError, match="run 'mine' needs my_corpus:Voices, code that does not come with SAMO"):
        samo_package.evaluate("mine", trust_code=NET)
    assert imported(work) == set()
    forget()
    assert samo_package.load("mine", trust_code=NET).predict("voices/sad_spk0_0.wav").label
    assert imported(work) == {"my_net"}
    forget()
    (block,) = (block for block in blocks("python") if "samo.train(" in block)
    quick = ", n_mels=32, sr=8000, duration=0.5, train_ratio=0.5, val_ratio=0.2, width=4, epochs=1, threads=1)"
    exec(re.sub(r'name="typed"\)', f'name="typed"{quick}', block), {})
    assert read_json(work / "artifacts" / "runs" / "typed" / "config.json")["width"] == 4
    assert imported(work) == {"my_net", "my_corpus"}


@pytest.mark.slow
def test_cells_take_over_what_was_typed(work: Path) -> None:
    """Two workers: processes of their own."""
    train = [word for word in commands(blocks("console")[0])[0][1:] if word not in ("--name", "mine")]
    fresh("crossval", *train, *QUICK["audio"][:-2], "--epochs", "1", "--folds", "2", "--workers", "2", "--name", "cv")
    assert imported(work) >= {"my_net", "my_corpus"}
    runs = sorted((work / "artifacts" / "grids" / "cv" / "runs").iterdir())
    assert [read_json(run / "config.json")["model"] for run in runs] == [NET] * len(runs)


def test_a_configuration_file_names_code_too(work: Path) -> None:
    (work / "mine.toml").write_text(f'model = "{NET}"\ndataset = "{VOICES}"\ndata_root = "voices"\n')
    fresh("train", "--config", "mine.toml", *QUICK["audio"])
    (run,) = (work / "artifacts" / "runs").iterdir()
    assert run.name == "my_corpus.Voices-emotion-my_net.tiny-001"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "no_such:net"], "error: --model no_such:net: there is no module 'no_such' (hint: it is"),
        (["--model", "my_net.deeper:net"], "--model my_net.deeper:net: there is no module 'my_net.deeper'"),
        (["--model", "my_net:tinny"], "has no 'tinny' (hint: did you mean 'tiny'? it has: nn, tiny)"),
        (["--model", "my_net:nn"], "--model my_net:nn is no function: module cannot be called"),
        (["--model", "my_net:"], "--model my_net:: write code of your own as package.module:name"),
        (["--model", "my_corpus:Voices.index"], "--model my_corpus:Voices.index: it fails: AttributeError"),
        (["--model", "builtins:len"], "--model builtins:len: it fails: TypeError: len() takes exactly one argument"),
        (["--model", "builtins:isinstance"], "isinstance() arg 2 must be a type"),
        (["--model", "operator:eq"], "--model operator:eq gives bool, not a torch.nn.modules.module.Module"),
        (["--dataset", "my_net:tiny"], "--dataset my_net:tiny is no corpus: it has no TITLE, LICENSE, CITATION"),
        (["--dataset", "broken:Corpus"], "--dataset broken:Corpus: importing 'broken' fails: ModuleNotFoundError"),
        (["--dataset", "strange:Corpus"], "--dataset strange:Corpus: index gives list, not a samo.data"),
        (["--dataset", "strange:Other"], "--dataset strange:Other: index fails: ValueError: not enough"),
        (["--dataset", "strange:Path"], "its manifest is called 'a/b', which files are named by"),
        (["--model", "smal-cnn"], "unknown model 'smal-cnn' (hint: did you mean 'small-cnn'? valid: small-cnn,"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(flags: list[str], message: str, work: Path) -> None:
    (work / "broken.py").write_text("import no_such_thing\n")
    (work / "strange.py").write_text(
        "from samo.data.manifest import Item, Manifest\nfrom samo.tasks import LabelSpace, Task\n"
        "class Corpus:\n    TITLE = LICENSE = CITATION = ''\n    SYNTHETIC = False\n"
        "    @staticmethod\n    def index(root, settings):\n        return []\n"
        "class Other(Corpus):\n    @staticmethod\n    def index(root, settings):\n        a, b = [1]\n"
        "class Path(Corpus):\n    @staticmethod\n    def index(root, settings):\n"
        "        task = Task('x', ('a', 'b'))\n"
        "        return Manifest('a/b', LabelSpace((task,)), (Item('i', 'i', {'x': ('a',)}),), root)\n"
    )
    forget()
    given = {"--model": "small-cnn", "--dataset": VOICES, "--data-root": "voices", **dict([flags])}
    result = samo("train", *(word for pair in given.items() for word in pair), *SMALL, "--epochs", "1")
    assert result.status in (2, 3)
    assert message in result.error
    for name in ("broken", "strange"):
        sys.modules.pop(name, None)


def test_a_corpus_of_ones_own_needs_a_root(work: Path) -> None:
    line = fails(2, "train", "--dataset", VOICES)
    assert "--dataset my_corpus:Voices needs --data-root (hint: give the folder or file the corpus lies in)" in line
    assert imported(work) == set()


@pytest.mark.slow
def test_inspecting_a_corpus_of_ones_own(work: Path) -> None:
    found = fresh("data", "inspect", "--dataset", VOICES, "--data-root", "voices", "--json").json
    assert found["dataset"] == "voices"
    result = fresh(
        "data", "inspect", "--modality", "text", "--dataset", "my_diary:Diary", "--data-root", "diary", "--json"
    )
    assert result.json["dataset"] == "diary"


@pytest.fixture
def package(work: Path) -> Path:
    """The page's entry points as an installed distribution has them."""
    site = work.parent / "site"
    info = site / "my_net-0.1.dist-info"
    info.mkdir(parents=True)
    for name in ("my_net", "my_corpus"):
        (work / f"{name}.py").rename(site / f"{name}.py")
    points = re.sub(r'"(.+?)" = "(.+?)"', r"\1 = \2", blocks("toml")[0])
    points = re.sub(r'\[project\.entry-points\."(.+?)"\]', r"[\1]", points)
    (info / "entry_points.txt").write_text(points + "ravdess = my_corpus:Voices\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-net\nVersion: 0.1\n")
    (info / "top_level.txt").write_text("my_net\nmy_corpus\n")
    sys.path.insert(0, str(site))
    return site


def test_entry_points(package: Path, work: Path) -> None:
    forget()
    line = refused(2, "train", "--model", "tinyy")
    assert "did you mean 'tiny'? valid: small-cnn, resnet18, " in line
    assert line.endswith(", tiny)")
    listed = fresh("data", "list", "--json").json["datasets"]
    assert listed["audio"]["voices"]["title"] == "of my-net 0.1"
    assert listed["audio"]["ravdess"]["licence"] == "CC BY-NC-SA 4.0"  # SAMO's own name stays SAMO's
    assert "voices" not in listed["text"]
    assert imported(work) == set()
    flags = ["--data-root", "voices", "--name", "short"]
    fresh("train", "--model", "tiny", "--dataset", "voices", *flags, *QUICK["audio"])
    assert imported(work) == {"my_net", "my_corpus"}
    code = read_json(work / "artifacts" / "runs" / "short" / "environment.json")["code"]
    assert (code["model"]["name"], code["model"]["module"]) == ("tiny", "my_net")
    assert code["model"]["distribution"] == "my-net 0.1"
    predict = ("predict", "voices", "--run", "short", "--threads", "1", "--json")
    assert "run 'short' needs tiny, code that does not come with SAMO" in fails(5, *predict)
    assert imported(work) == set()
    assert len(fresh(*predict, "--trust-code", "tiny").json["predictions"]) == 36
    sys.path.remove(str(package))
    line = fails(5, *predict, "--trust-code", "tiny")
    assert line == "error: run 'short' needs 'tiny' of my-net 0.1, which is not installed here"


def test_settings_of_sams_own_networks_are_still_refused_for_them(work: Path) -> None:
    assert "--width acts only together with --model small-cnn" in refused(
        2, "train", "--model", "resnet18", "--width", "8"
    )

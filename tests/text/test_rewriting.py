"""Rewritings of texts: exact results, what stays, what may change."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_rewriting as tiny
import torch

from samo.data.near_duplicates import folded
from samo.errors import EnvironmentProblem, ModelFileError, SettingsError
from samo_text.rewriting import synonyms
from samo_text.rewriting.kinds import KINDS, chosen_kinds
from samo_text.rewriting.length import first_words, repeated
from samo_text.rewriting.masked_lm import MaskedWords
from samo_text.rewriting.negation import insert_negation, toggle_contractions
from samo_text.rewriting.noise import add_emoji, draw_out, lower_case, make_typos, remove_emoji, upper_case
from samo_text.rewriting.order import swap_neighbours
from samo_text.rewriting.punctuation import add_marks, change_marks, remove_marks
from samo_text.rewriting.synonyms import Synonyms, open_wordnet
from samo_text.rewriting.translation import BackTranslation
from samo_text.rewriting.words import (
    chance_of,
    how_many,
    is_negation,
    join_pieces,
    kept_as_is,
    pieces_of,
    word_places,
)

CPU = torch.device("cpu")
FULL = (
    "I can't believe [NAME] did this :) SO happy!! \U0001f602\u2764\ufe0f "
    "see https://x.y/z or r/news #tag, don\u2019t you?"
)
ONE_BY_ONE = [make_typos, draw_out, add_emoji, swap_neighbours, change_marks, add_marks, upper_case, lower_case]


class Fixed(random.Random):
    """Dice that show what they are told, over and over."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values, self.thrown = values, 0

    def random(self) -> float:
        self.thrown += 1
        return self.values[(self.thrown - 1) % len(self.values)]


def kinds_of(text: str) -> list[tuple[str, str]]:
    return [(piece.kind, piece.text) for piece in pieces_of(text) if piece.kind != "space"]


def test_pieces_are_told_apart_and_join_again() -> None:
    assert join_pieces(pieces_of(FULL)) == FULL
    assert kinds_of("[NAME] isn't :) XD 8-) <3 sad, r/news or/and") == [
        ("placeholder", "[NAME]"), ("word", "isn't"), ("emoticon", ":)"), ("emoticon", "XD"), ("emoticon", "8-)"),
        ("emoticon", "<3"), ("word", "sad"), ("mark", ","), ("link", "r/news"), ("word", "or"), ("mark", "/"),
        ("word", "and"),
    ]  # fmt: skip
    assert kinds_of("\U0001f44d\U0001f3fd \U0001f602") == [("emoji", "\U0001f44d\U0001f3fd"), ("emoji", "\U0001f602")]


@pytest.mark.parametrize(
    ("word", "negates"), [("Not", True), ("don\u2019t", True), ("DIDNT", True), ("never", True), ("knot", False)]
)
def test_negations(word: str, negates: bool) -> None:
    assert is_negation(word) is negates


def test_what_must_stay_is_counted_and_texts_are_compared_folded() -> None:
    assert kept_as_is("[NAME] is not NOT sad :)") == {"[name]": 1, "not": 2, ":)": 1}
    assert folded("  Oh\tWell \n STRASSE") == folded("oh well stra\u00dfe")


@pytest.mark.parametrize(("strength", "n", "expected"), [(0.1, 3, 1), (0.5, 8, 4), (1.0, 3, 3), (0.1, 0, 0)])
def test_how_many_places_change(strength: float, n: int, expected: int) -> None:
    assert how_many(strength, n) == expected


def test_dice_are_a_function_of_their_keys() -> None:
    assert chance_of(1, "a").random() == chance_of(1, "a").random() != chance_of(2, "a").random()


@pytest.mark.parametrize("rewrite", ONE_BY_ONE)
def test_every_rewriting_takes_any_text(rewrite: Callable[[str, float, random.Random], str]) -> None:
    for text in ("", " ", "?!", "[NAME]", "\U0001f602", "a", "\ud800\x00", "na\u00efve \u4f60\u597d", "x " * 200):
        assert rewrite(text, 0.3, chance_of(0)) == rewrite(text, 0.3, chance_of(0))
    global_state = random.getstate()
    rewrite(FULL, 0.5, chance_of(0))
    assert random.getstate() == global_state


def test_neighbours_swap_but_no_negation_and_across_no_mark() -> None:
    assert swap_neighbours("one two", 0.1, Fixed(0.0)) == "two one"
    assert swap_neighbours("one two three", 0.1, Fixed(0.99)) == "one three two"
    for text in ("do not", "one, two", "[NAME] came", "so so", "one"):
        assert swap_neighbours(text, 1.0, chance_of(0)) == text


def test_marks_come_go_and_change() -> None:
    # First die: which action; then which place, and which mark.
    assert change_marks("oh, well", 0.1, Fixed(0.0)) == "oh, well." != change_marks("oh, well", 0.1, Fixed(0.5))
    assert change_marks("oh, well", 0.1, Fixed(0.4)) == "oh well"
    assert change_marks("oh, well", 0.1, Fixed(0.7)) == "oh: well"
    assert change_marks("why?! :)", 1.0, Fixed(0.5)).count("?!") <= 1
    assert add_marks("a b", 1.0, Fixed(0.0)) == "a. b."
    assert remove_marks("Oh, [NAME]: don't (ever)! :) https://x.y/z") == "Oh [NAME] don't ever :) https://x.y/z"
    for seed in range(20):
        changed = change_marks("What?! No, no; go away.", 0.5, chance_of(seed))
        assert "?" in changed
        assert "!" in changed


@pytest.mark.parametrize(
    ("dice", "expected"),
    [  # Which words, which kind of error, which letter, which neighbour: s is beside a, d, w and x.
        ((0.0, 0.0, 0.0, 0.0), "aad"),
        ((0.0, 0.0, 0.0, 0.99), "xad"),
        ((0.0, 0.3, 0.0, 0.0), "asd"),
        ((0.0, 0.6, 0.0), "ad"),
        ((0.0, 0.9, 0.0), "ssad"),
    ],
)
def test_typing_errors(dice: tuple[float, ...], expected: str) -> None:
    assert make_typos("sad", 0.1, Fixed(*dice)) == expected
    assert make_typos("I a ? [NAME]", 1.0, chance_of(0)) == "I a ? [NAME]"


def test_strength_is_the_share_of_words_touched() -> None:
    text = " ".join(["remarkable"] * 20)
    for strength, expected in ((0.1, 2), (0.5, 10), (1.0, 20)):
        for rewrite in (make_typos, draw_out):
            words = rewrite(text, strength, chance_of(3)).split()
            assert sum(word != "remarkable" for word in words) == expected


def test_case_letters_and_emoji() -> None:
    assert upper_case("Oh [NAME] https://x.y/z") == "OH [NAME] https://x.y/z"
    assert lower_case("OH [NAME] XD") == "oh [NAME] XD"
    assert draw_out("so", 0.1, Fixed(0.0)) == "sooo"
    assert draw_out("so", 0.1, Fixed(0.99)) == "sooooo"
    assert remove_emoji("ha \U0001f602 :) ha") == "ha ha"
    assert remove_emoji("two  spaces") == "two  spaces"
    assert add_emoji("ha", 0.1, Fixed(0.0)) == "ha \U0001f4cc"


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("I don't know", "I do not know"),
        ("DON'T", "DO NOT"),
        ("I can't", "I cannot"),
        ("It won't", "It will not"),
        ("Wasn\u2019t it", "Was not it"),
    ],
)
def test_contractions_are_written_out_and_back(short: str, long: str) -> None:
    assert toggle_contractions(short) == long
    assert toggle_contractions(long) == short.replace("\u2019", "'")


def test_contractions_that_stand_for_two_things_stay() -> None:
    assert toggle_contractions("he's, she'd, it ain't: mountain tops") == "he's, she'd, it ain't: mountain tops"
    assert toggle_contractions("I'm sure they're in, we've won, you'll see") == (
        "I am sure they are in, we have won, you will see"
    )


def test_negation_denies_once() -> None:
    assert insert_negation("This IS great, it is") == "This IS NOT great, it is"
    assert insert_negation("I'm sad") == "I'm not sad"
    assert insert_negation("Love it!") == "It is not true that love it!"
    assert insert_negation("I do not care") == "I do not care"
    assert insert_negation(" ") == " "


def test_cut_and_repeated() -> None:
    assert first_words(2)("one, two, three", 0.1, chance_of(0)) == "one, two,"
    assert first_words(3)("one, two, three!", 0.1, chance_of(0)) == "one, two, three!"
    assert repeated(3)("a b", 0.1, chance_of(0)) == "a b a b a b"


def test_kinds_are_chosen_by_name() -> None:
    assert chosen_kinds("") == tuple(KINDS)
    assert chosen_kinds("typos, case") == ("typos", "case")
    with pytest.raises(SettingsError, match="'typo': unknown"):
        chosen_kinds("typo")
    with pytest.raises(SettingsError, match="twice"):
        chosen_kinds("typos,typos")


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.wordnet(tmp_path_factory.mktemp("nltk_data"))


@pytest.fixture
def with_wordnet(wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(wordnet)])


@pytest.mark.usefixtures("with_wordnet")
def test_synonyms_come_from_the_most_frequent_sense() -> None:
    rewriter = Synonyms(1.0)
    text = "Happy dog, LOVE the dogs not slowly [NAME]"
    assert rewriter.rewrite([text], [Fixed(0.0)]) == ["Glad domestic dog, ADORE the dogs not tardily [NAME]"]
    # "no_good" would deny, "not_do" is no word of the text, the plural is not how WordNet lists it.
    assert rewriter.rewrite(["sad dogs"], [Fixed(0.0)]) == ["sad dogs"]
    assert rewriter.rewrite([""], [Fixed(0.0)]) == [""]


@pytest.mark.usefixtures("with_wordnet")
def test_strength_of_synonyms() -> None:
    words = ["dog", "anger", "love", "happy", "slowly", "xx", "yy", "zz", "vv", "ww"]
    for strength, expected in ((0.1, 1), (0.3, 3), (1.0, 5)):
        (rewritten,) = Synonyms(strength).rewrite([" ".join(words)], [chance_of(5)])
        assert sum(word not in words for word in rewritten.replace("domestic dog", "domestic").split()) == expected


def test_wordnet_is_found_in_samos_cache_or_missed_in_one_line(
    wordnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="needs WordNet") as missed:
        open_wordnet()
    assert "samo data download wordnet" in missed.value.hint
    (tmp_path / "nltk_data").symlink_to(wordnet)
    assert [sense.lemma_names() for sense in open_wordnet().synsets("anger")] == [["anger", "ire"]]


def test_damaged_wordnet_and_failed_downloads_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data
    from nltk.downloader import Downloader

    monkeypatch.setattr(nltk.data, "path", [str(tiny.wordnet(tmp_path / "bad"))])
    (tmp_path / "bad/corpora/wordnet/index.noun").write_text("nonsense n x\n")
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        open_wordnet()

    def refused(self: Downloader, name: str) -> None:
        raise ValueError("no route to host")

    monkeypatch.setattr(Downloader, "info", refused)
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="cannot be downloaded: no route to host"):
        synonyms.download_wordnet()


def packed_wordnet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wordnet.zip where SAMO downloads it to, and an index of nltk's that lists it."""
    from nltk.downloader import Downloader

    tiny.wordnet(folder / "source")
    packed = folder / "nltk_data" / "corpora" / "wordnet.zip"
    packed.parent.mkdir(parents=True)
    shutil.make_archive(str(packed.with_suffix("")), "zip", folder / "source" / "corpora", "wordnet")
    md5 = hashlib.md5(packed.read_bytes()).hexdigest()
    listed = SimpleNamespace(url="http://127.0.0.1:1/wordnet.zip", size=packed.stat().st_size, checksum=md5)
    monkeypatch.setattr(Downloader, "info", lambda self, name: {"wordnet": listed}[name])
    monkeypatch.setattr("nltk.data.path", [])
    monkeypatch.setenv("SAMO_CACHE", str(folder))
    return packed


def test_a_download_ends_in_samos_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_wordnet(tmp_path, monkeypatch)
    folder = packed.parent
    assert synonyms.download_wordnet() == folder / "wordnet"
    assert [path.name for path in folder.iterdir()] == ["wordnet"]
    assert [sense.lemma_names() for sense in open_wordnet().synsets("anger")] == [["anger", "ire"]]
    # Nothing is asked of the net or the index again.
    assert synonyms.download_wordnet() == folder / "wordnet"


def test_a_wordnet_that_nltk_does_not_list_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_wordnet(tmp_path, monkeypatch)
    packed.write_bytes(b"PK")
    with pytest.raises(EnvironmentProblem, match=r"cannot reach 127\.0\.0\.1.*already there has 2 bytes") as missed:
        synonyms.download_wordnet()
    assert "fetch wordnet.zip elsewhere" in missed.value.hint
    assert os.listdir(packed.parent) == ["wordnet.zip"]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> MaskedWords:
    return MaskedWords(str(tiny.masked_lm(tmp_path_factory.mktemp("masked"))), 0.5, CPU)


def test_masked_words_are_replaced_whole_by_whole_words(masked: MaskedWords) -> None:
    text = "[NAME] is Happy \U0001f602 not sad :)"
    for seed in range(10):
        (rewritten,) = masked.rewrite([text], [chance_of(seed)])
        assert kept_as_is(rewritten) == kept_as_is(text)
        words = [pieces_of(rewritten)[place].text for place in word_places(pieces_of(rewritten))]
        changed = sum(new != old for new, old in zip(words, ["is", "Happy", "not", "sad"], strict=True))
        assert changed == 2  # half of four words, and never by themselves
        assert words[2] == "not"
        assert words[1][0].isupper()
        assert {word.lower() for word in words} <= set(tiny.tiny.WORDS)


def test_masked_words_do_not_depend_on_the_batch(masked: MaskedWords) -> None:
    texts = ["i love it", "he was so very sad , not happy !", "", "this [MASK] text", "not"]
    together = masked.rewrite(texts, [chance_of(k) for k in range(5)])
    assert together == [masked.rewrite([text], [chance_of(k)])[0] for k, text in enumerate(texts)]
    assert together[2:] == texts[2:]
    assert together[0] != texts[0]


def test_words_behind_the_longest_length_stay(masked: MaskedWords) -> None:
    text = " ".join(["happy"] * 200)
    rewritten = masked.rewrite([text], [chance_of(0)])[0].split()
    assert len(rewritten) == 200
    assert rewritten[39:] == ["happy"] * 161
    assert rewritten[:39] != ["happy"] * 39


def test_tokens_within_a_word_are_no_words(tmp_path: Path) -> None:
    rewriter = MaskedWords(str(tiny.byte_level_lm(tmp_path)), 1.0, CPU)
    # Neither "never" (a negation) nor "ad" (goes on with a word) nor a single letter may be written.
    assert {rewriter.rewrite(["sad"], [chance_of(seed)])[0] for seed in range(20)} == {"happy", "glad"}


def test_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"`masked_lm=.*`: .*no such folder"):
        MaskedWords(str(tmp_path / "none"), 0.1, CPU)
    with pytest.raises(ModelFileError, match=r"`back_translation_models=.*` .*neither config.json"):
        BackTranslation(str(tmp_path), str(tmp_path), CPU)
    encoder = str(tiny.tiny.encoder(tmp_path / "encoder"))
    with pytest.raises(ModelFileError, match=r"is no masked language model; its weights lack cls\.predictions"):
        MaskedWords(encoder, 0.1, CPU)


def test_back_translation_is_greedy_and_takes_any_text(tmp_path: Path) -> None:
    there, back = tiny.translator(tmp_path / "a", 1), tiny.translator(tmp_path / "b", 2)
    rewriter = BackTranslation(str(there), str(back), CPU)
    texts = ["i love it", "", "he was so very sad", " ".join(["happy"] * 600)]
    chances = [chance_of(0)] * 4
    rewritten = rewriter.rewrite(texts, chances)
    assert rewritten == rewriter.rewrite(texts, [chance_of(9)] * 4)
    assert rewritten[1] == ""
    assert rewritten[3] == texts[3]  # longer than the model takes
    assert all(set(text.split()) <= set(tiny.tiny.vocabulary("bert")) for text in (rewritten[0], rewritten[2]))
    assert rewritten[0] == rewriter.rewrite(texts[:1], chances[:1])[0]


def test_back_translation_goes_there_and_then_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tiny.translator(tmp_path / "a", 1))
    rewriter = BackTranslation(folder, folder, CPU)
    (first, _), (second, _) = rewriter._ways
    dictionaries = {id(first): {"glad": "froh", "lost": ""}, id(second): {"froh": "happy"}}

    def looked_up(texts: list[str], tokenizer: object, model: object) -> list[str]:
        return [dictionaries[id(tokenizer)].get(text, text) for text in texts]

    monkeypatch.setattr(rewriter, "_translated", looked_up)
    assert rewriter.rewrite(["glad", "lost"], [chance_of(0)] * 2) == ["happy", "lost"]

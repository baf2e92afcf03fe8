"""Copies and near copies among strings: against brute force over the definition."""

from __future__ import annotations

import random

import numpy as np
import pytest

from samo.data import near_duplicates
from samo.data.copies import about_copies
from samo.data.near_duplicates import NEAR, bare, find_copies, find_near_copies, folded, near_pairs


def grams(text: str) -> set[str]:
    padded = f" {bare(text)} ".ljust(5)
    return {padded[k : k + 5] for k in range(len(padded) - 4)}


def jaccard(one: str, other: str) -> float:
    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize(
    ("text", "as_folded", "as_bare"),
    [
        ("  Thanks\u00a0 a\tLOT!!\n", "thanks a lot!!", "thanks a lot"),
        ("Stra\u00dfe, don\u2019t", "strasse, don\u2019t", "strasse dont"),
        ("\uff26ine \u2764\ufe0f", "fine \u2764\ufe0f", "fine \u2764"),
        ("a-b_c 12", "a-b_c 12", "a b c 12"),
        ("?!", "?!", "?!"),
        ("", "", ""),
    ],
)
def test_folding(text: str, as_folded: str, as_bare: str) -> None:
    assert (folded(text), bare(text)) == (as_folded, as_bare)


def test_emoji_tell_texts_apart() -> None:
    assert bare("so good \U0001f60a") != bare("so good \U0001f622")


WORDS = (
    "thanks",
    "so",
    "much",
    "for",
    "this",
    "I",
    "love",
    "it",
    "when",
    "they",
    "play",
    "well",
    "no",
    "really",
    "[NAME]",
)


def sentences(n: int, seed: int) -> list[str]:
    """Sentences of few words, so that many are copies, near copies and not quite near copies."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.choice((1, 2, 3, 6, 9)))) + rng.choice(("", "!", " ")) for _ in range(n)]


@pytest.mark.parametrize("seed", range(4))
def test_near_copies_are_all_pairs_by_the_definition(seed: int) -> None:
    texts = sentences(150, seed)
    # Long ones that differ in one word lie around the threshold.
    texts += [" ".join(sentences(1, seed * 100 + k // 4) * 3) + f" word{k % 4}" for k in range(40)]
    parts = np.arange(len(texts)) % 3
    expected = sorted(
        (i, j) if parts[i] < parts[j] else (j, i)
        for i in range(len(texts))
        for j in range(i)
        if parts[i] != parts[j] and jaccard(texts[i], texts[j]) >= NEAR - 1e-9
    )
    found = find_near_copies(texts, parts)
    assert [tuple(pair) for pair in found.tolist()] == expected
    assert len(expected) > 20


def test_near_copies_of_hand_made_sentences() -> None:
    shown = "I really love this show so much"
    texts = [shown, shown.swapcase() + "!!", shown.replace("show", "shop"), ""]
    assert find_near_copies(texts, [0, 1, 1, 1]).tolist() == [[0, 1]]
    assert find_near_copies(texts, [1, 0, 0, 0]).tolist() == [[1, 0]]
    assert find_near_copies(texts, [0, 0, 0, 0]).tolist() == []
    assert find_near_copies([], []).tolist() == []
    assert find_near_copies(["a\ud83d", "a\ud83d"], [0, 1]).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="2 texts, 1 parts"):
        find_near_copies(["a", "b"], [0])


def test_copies_by_grade() -> None:
    others = ("Thank you!", "what do you mean by that now?", "fine")
    texts = ("thank  YOU!", "Thank you", "what do you mean by that now", "what do you mean by those", "x")
    found = find_copies(texts, others)
    assert (found.same, found.near, found.all) == ({0}, {1, 2}, {0, 1, 2})
    assert find_copies((), others).all == find_copies(others, ()).all == frozenset()


def test_long_strings_are_compared_by_their_beginning() -> None:
    long = " ".join(f"w{k}" for k in range(3000))
    assert find_near_copies([long + " a b c", long[:9000] + " else"], [0, 1]).tolist() == [[0, 1]]


FOOTER = (
    " You receive this mail because you are on the list of a club of people who walk and swim and cook; write to our"
    " secretary or to one of the two presidents if you would rather leave that list, which you can do any time you like"
)
FOOTER += FOOTER[::-1]


def mails(n: int) -> list[str]:
    """Twelve invented words above one footer, unlike from mail to mail."""
    rng = random.Random(0)
    return [" ".join("".join(rng.choices("abcdefgh", k=3)) for _ in range(12)) + FOOTER for _ in range(n)]


def test_what_most_rows_share_makes_no_copies() -> None:
    texts = mails(300)
    assert jaccard(texts[0], texts[1]) > NEAR
    texts[200] = texts[7][:40] + "end" + texts[7][43:]
    assert find_near_copies(texts, np.arange(300)).tolist() == [[7, 200]]
    found = find_copies((*texts[:100], FOOTER), (*texts[100:], FOOTER + "!"))
    assert (found.same, found.near, found.searched) == (frozenset(), {7, 100}, 1.0)


def test_a_search_too_long_leaves_out_common_phrases_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    other = (
        " This comment was sent from a telephone with small keys by somebody with large thumbs; please excuse brevity"
        " and mistakes in spelling, and do not answer before noon since nobody reads any answers while the sun is low"
    )
    texts = [text if k % 5 else text.replace(FOOTER, other + other[::-1]) for k, text in enumerate(mails(400))]
    texts[250] = texts[8][:40] + "end" + texts[8][43:]
    parts = {"train": tuple(texts[200:]), "val": tuple(texts[:200]), "test": ("nothing of the kind",)}
    # The footer of a fifth of the rows makes copies of 40 rows, that of the others makes none.
    find_copies.cache_clear()
    assert about_copies(parts)[0].startswith(
        "no rows also stand in train word for word (but for case and spaces), 41 val"
    )
    monkeypatch.setattr(near_duplicates, "_MOST_MEETINGS", 0)
    find_copies.cache_clear()
    lines = about_copies(parts)
    find_copies.cache_clear()
    assert lines == [
        "rows that share only phrases which 0.5 % of all rows have were not compared with train: there are too many",
        "rows that share only phrases which 1 % of all rows have were not compared with val: there are too many",
    ]


def test_pairs_put_together_the_same_rows_as_the_definition() -> None:
    texts = sentences(200, 9)
    group = list(range(200))

    def together(pairs: list[tuple[int, int]]) -> list[int]:
        own = list(group)
        for one, other in pairs:
            kept, gone = sorted((own[one], own[other]))
            own = [kept if each == gone else each for each in own]
        return own

    expected = [(i, j) for i in range(200) for j in range(i) if jaccard(texts[i], texts[j]) >= NEAR - 1e-9]
    found = near_pairs(tuple(texts))
    assert together(list(found)) == together(expected)
    assert len(found) < len(expected)

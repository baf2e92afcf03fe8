"""What is passed on names files and folders, and not where on a disk they lie."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from samo.reporting.published import published_card, published_command, published_settings


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("/home/anna/data/ravdess", "ravdess"),
        ("/home/anna/my data/ravdess/", "ravdess"),
        ("~/nets/mn04.pt", "mn04.pt"),
        ("~anna/nets/mn04.pt", "mn04.pt"),
        ("../data/ravdess", "ravdess"),
        ("/grids/a,/home/anna/b", "a,b"),
        ("openai/whisper-base,/home/anna/back", "openai/whisper-base,back"),
        ("/home/anna/.cache/huggingface/hub/models--openai--whisper-base/snapshots/12ab", "openai/whisper-base"),
        ("file:///home/anna/store", "file:///store"),
        ("file://localhost/home/anna/store", "file:///store"),
        ("sqlite:////home/anna/study.db", "sqlite:///study.db"),
    ],
)
def test_of_a_place_its_name_is_left(value: str, name: str) -> None:
    assert published_settings({"encoder": value, "several": [value, 1]}) == {"encoder": name, "several": [name, 1]}
    assert published_command(f"samo train --lr 0.1 --encoder '{value}'") == f"samo train --lr 0.1 --encoder {name}"
    assert published_command(f"samo train '--encoder={value}'") == f"samo train --encoder={name}"


@pytest.mark.parametrize(
    "value",
    [
        "", "data/ravdess", "./ravdess", "openai/whisper-base", "s3://bucket/a/b", "https://a.org/b/c", "/", "and / or",
        "http://localhost/home/a", "my_net:tiny", "0.01, 0.95", 0.1, None, True,
    ],
)  # fmt: skip
def test_what_is_no_place_of_one_machine_stays(value: Any) -> None:
    assert published_settings({"x": value}) == {"x": value}


def test_a_comma_in_the_name_of_a_folder() -> None:
    place = "/home/anna/a, b/it, too"
    assert published_settings({"data_root": place}) == {"data_root": "it, too"}
    for typed in ("--data-root '{}'", "'--data-root={}'"):
        found = published_command(f"samo train {typed.format(place)} --teacher /a/b,/a/c")
        assert found == f"samo train {typed.format('it, too')} --teacher b,c"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/home/anna/my data, old/it_s", "it_s"),
        ("/data/a, b/it, too", "it, too"),
        ("../x, y/z (2)", "z (2)"),
        ("/mnt/my data/x; y: z", "x; y: z"),
        ("/mnt/a,b/c;d/e", "e"),
        ("/data/_x_, y/`a`*b*|c", "`a`*b*|c"),
    ],
)
def test_any_sign_in_the_name_of_a_folder(place: str, name: str) -> None:
    one = ("data_root", "encoder", "weights", "masked_lm", "noise_root", "extra_table")
    assert published_settings(dict.fromkeys(one, place)) == dict.fromkeys(one, name)
    typed = shlex.join(["samo", "train", "--encoder", place])
    assert published_command(typed) == shlex.join(["samo", "train", "--encoder", name])


def test_several_places_with_spaces_behind_commas() -> None:
    given = "/home/anna/my runs, old/a, /home/anna/b,/home/anna/c"
    assert published_settings({"teacher": given}) == {"teacher": "a, b,c"}


def test_a_regular_expression_is_no_path() -> None:
    assert published_settings({"speaker_pattern": "/actor([0-9]+)/"}) == {"speaker_pattern": "/actor([0-9]+)/"}
    for typed in ("--speaker-pattern /actor/x", "--speaker-pattern=/actor/x"):
        assert published_command(f"samo train {typed} --data-root /a/b") == f"samo train {typed} --data-root b"


def test_a_command_without_places_stays_to_the_letter() -> None:
    for line in ('samo  train --name "my run"', "samo train 'half"):
        assert published_command(line) == line
    assert published_command("samo train 'half --data-root /home/anna/clips") == "samo train 'half --data-root clips"


def test_a_call_in_python_is_one_before_and_after() -> None:
    call = (
        "samo.train(modality='audio', data_root={}, folds=[1, 2], speaker_pattern='/actor([0-9]+)/', grids={}, n=n())"
    )
    given = call.format("'/home/anna/it\\'s'", "['/home/anna/a', 'b', 0.5]")
    assert published_command(given) == call.format('"it\'s"', "['a', 'b', 0.5]")
    for line in ("samo.train( modality='audio', speaker_pattern='/actor/', folds=(1, 2))", "samo.train(a='it"):
        assert published_command(line) == line


def test_a_card_of_any_version() -> None:
    card = """# Model card: x

See https://a.org/b/c, doi:10.1/2 and (/home/anna/notes.md).

## Results by group

| by | lowest |
| :-- | --: |
| /r/joy | 0.5 |

## Training settings

| name | value |
| :-- | :-- |
| speaker_pattern | /actor([0-9]+)/ |
| weights | /home/anna/my nets/a\\|b.pt |
| teacher | /grids/a, /grids/b |

## How to reproduce

```sh
samo train --data-root '/home/anna/my data/clips'
samo evaluate x
```

## Exported file x.onnx

- onnx; opset 18
"""
    expected = card
    for place, name in (
        ("/home/anna/notes.md", "notes.md"), ("/home/anna/my nets/", ""), ("/grids/", ""),
        ("'/home/anna/my data/clips'", "clips"),
    ):  # fmt: skip
        expected = expected.replace(place, name)
    assert published_card(card) == expected
    assert published_card(expected) == expected


def test_the_end_of_a_tag_is_no_path() -> None:
    card = "# Model card: <script>alert(2)</script>\n\nRead <b>data</b> in /home/anna/clips.\n"
    assert published_card(card) == "# Model card: <script>alert(2)</script>\n\nRead <b>data</b> in clips.\n"


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Labels are /r/joy, /r/sad, of 50 /60 at 3 km /h.", "Labels are /r/joy, /r/sad, of 50 /60 at 3 km /h."),
        ("`/home` or /homes/a, and/or /tmp", "`/home` or /homes/a, and/or /tmp"),
        ("Of ~anna/nets/a.pt, ../b/c and `/kaggle/input/d`.", "Of a.pt, c and `d`."),
        ("From file:///mnt/disk/store, //data/x/y.", "From file:///store, y."),
        ("Of file://localhost/mnt/a/b or http://localhost/home/a", "Of file:///b or http://localhost/home/a"),
    ],
)
def test_a_slash_in_a_sentence_is_seldom_a_path(sentence: str, expected: str) -> None:
    assert published_card(sentence) == expected

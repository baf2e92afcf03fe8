"""The page's files, read without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import samo.serve

STATIC = Path(samo.serve.__file__).parent / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
MARKUP = (STATIC / "index.html").read_text()
STYLE = (STATIC / "page.css").read_text()
# What reads data as markup or as a program.
DANGEROUS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|DOMParser|document\.write|srcdoc"
    r"|\beval\(|new Function"
)


def test_no_script_reads_data_as_markup() -> None:
    assert len(SCRIPTS) > 15
    assert {
        path.name: DANGEROUS.findall(path.read_text()) for path in SCRIPTS if DANGEROUS.search(path.read_text())
    } == {}
    assert DANGEROUS.search("place.innerHTML = label")


def test_nothing_is_loaded_from_elsewhere() -> None:
    """The only address is the name of SVG's elements, which nobody opens."""
    for path in STATIC.iterdir():
        assert set(re.findall(r"\w+://[^\s\"'`]*", path.read_text())) <= {"http://www.w3.org/2000/svg"}, path.name
    assert re.findall(r"""(?:src|href)=["']?/""", MARKUP) == []
    assert re.findall(r"url\(|@import", STYLE) == []


def test_the_policy_allows_all_of_the_markup() -> None:
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", MARKUP) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", MARKUP) == []


def test_every_element_that_a_script_looks_for_is_there() -> None:
    wanted = {name for path in SCRIPTS for name in re.findall(r"byId\(\"([\w-]+)\"\)", path.read_text())}
    ids = re.findall(r"\bid=\"([\w-]+)\"", MARKUP)
    assert len(wanted) > 20
    assert wanted <= set(ids)
    assert len(ids) == len(set(ids))


def test_every_import_is_a_file_with_that_name() -> None:
    for path in SCRIPTS:
        for names, source in re.findall(r"import (?:\{([^}]*)\}|\* as \w+) from \"\./([\w-]+\.js)\"", path.read_text()):
            exported = set(
                re.findall(r"export (?:async )?(?:function|class|const) (\w+)", (STATIC / source).read_text())
            )
            assert {name.strip() for name in names.split(",") if name.strip()} <= exported, (path.name, source)


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))
    return found if scheme == "light" else found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark))


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(scheme: str) -> None:
    """At least 4.5 to 1, WCAG 2.2's level AA for small letters; 3 to 1 for what bars and buttons are told by."""
    found = colours(scheme)
    words = [
        ("ink", "paper"), ("ink", "card"), ("ink", "field"), ("ink", "tint"), ("soft", "paper"), ("soft", "card"),
        ("soft", "field"), ("soft", "tint"), ("accent", "card"), ("on-accent", "accent"), ("accent", "paper"),
        ("recording", "card"), ("bad", "bad-tint"), ("bad", "card"), ("mind", "mind-tint"),
    ]  # fmt: skip
    assert {
        pair: round(contrast(found[pair[0]], found[pair[1]]), 2)
        for pair in words
        if contrast(found[pair[0]], found[pair[1]]) < 4.5
    } == {}
    assert contrast(found["accent"], found["field"]) > 3

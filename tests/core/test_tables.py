"""Tables of rows: nothing of what people save is lost, split or merged in reading."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from samo.data.tables import Table, as_text, attributes, filled, lists_saved_as_text, optional, read_stream, read_table
from samo.errors import DataError


def read(path: Path, content: str | bytes, *wanted: str) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, {"text", "label", *wanted})


def pairs(table: Table) -> list[tuple[str, str]]:
    return [(row.cells["text"], row.cells["label"]) for row in table.rows]


def test_stray_quotes_between_tabs_swallow_no_row(tmp_path: Path) -> None:
    table = read(
        tmp_path / "t.tsv", 'text\tlabel\none\tjoy\n"two\tfear\nthree\tjoy\n\nfour"\tfear\n"f ""i"" ve"\tjoy\n'
    )
    assert pairs(table) == [("one", "joy"), ('"two', "fear"), ("three", "joy"), ('four"', "fear"), ('f "i" ve', "joy")]
    assert [row.line for row in table.rows] == [2, 3, 4, 6, 7]
    assert table.notes == ("quotation marks of t.tsv that nothing closes stand in the texts: row 3",)
    # One that nothing closes until the end, and one that is closed within its line.
    table = read(tmp_path / "t.tsv", 'text\tlabel\n"one" said\tjoy\n"two\tfear\nthree\tjoy\n')
    assert [text for text, _ in pairs(table)] == ['"one" said', '"two', "three"]


def test_stray_quotes_between_commas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3 of .*t\.csv: a quotation mark opens a cell of 3 lines"):
        read(tmp_path / "t.csv", 'text,label\none,joy\n"two,fear\nthree,joy\nfour",fear\nfive,joy\n')


def test_texts_of_several_lines_stay_whole(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", 'text,label\n"Dear Ann,\nhow, are, you\nfine",joy\n"a\nb",fear\nc,joy\n')
    assert pairs(table) == [("Dear Ann,\nhow, are, you\nfine", "joy"), ("a\nb", "fear"), ("c", "joy")]
    assert table.notes == ("2 rows of t.csv hold several lines: row 2, 3",)
    table = read(tmp_path / "t.tsv", 'text\tlabel\n"a\nb\nc"\tjoy\nd\tfear\n')
    assert pairs(table) == [("a\nb\nc", "joy"), ("d", "fear")]
    # Where nothing shows whether it is one cell or two rows, a line says that it was taken as one.
    table = read(tmp_path / "t.csv", 'label,text\njoy,"red\nviolets, blue"\nfear,b\n')
    assert pairs(table) == [("red\nviolets, blue", "joy"), ("b", "fear")]
    assert table.notes == ("1 row of t.csv holds several lines: row 2",)


def test_rows_that_a_quotation_mark_swallows_are_told_by_their_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3 of .*t\.csv: a quotation mark opens a cell of 4 lines"):
        read(tmp_path / "t.csv", 'id,text\n1,hello\n2,"oh no\n3,fine\n4,great\n5,she said bye"\n6,last\n')
    table = read(tmp_path / "t.csv", 'id,text\n1,hello\n2,"oh no\nfine, great"\n6,last\n')
    assert [row.cells["text"] for row in table.rows] == ["hello", "oh no\nfine, great", "last"]
    assert table.notes == ("1 row of t.csv holds several lines: row 3",)


def test_rows_shorter_than_the_header_are_not_swallowed(tmp_path: Path) -> None:
    rows = 'a.wav,joy,1\n"b.wav,sad,2\nc.wav,joy,3\nd.wav",sad,4\ne.wav,sad,1\n'
    with pytest.raises(DataError, match=r"row 3 of .*t\.csv: a quotation mark opens a cell of 3 lines"):
        read(tmp_path / "t.csv", "path,label,speaker,split\n" + rows)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("head", ["", "sep=;\r\n", '"sep=;"\n'])
def test_what_excel_writes(tmp_path: Path, encoding: str, head: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    content = mark + (head + "text;label\r\nZo\u00eb, 1;joy\r\nb;fear\r\n").encode(encoding)
    table = read(tmp_path / "t.csv", content)
    assert pairs(table) == [("Zo\u00eb, 1", "joy"), ("b", "fear")]
    assert [row.line for row in table.rows] == [2, 3]


def test_bars(tmp_path: Path) -> None:
    assert pairs(read(tmp_path / "t.csv", "text|label\na, b; c|joy\n")) == [("a, b; c", "joy")]
    # A bar in the cells is no delimiter.
    assert pairs(read(tmp_path / "t.csv", "text,label\na|b,joy|fear\n")) == [("a|b", "joy|fear")]


def test_json_in_either_shape_under_any_name(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": "x"}\n\n{"text": "b", "label": NaN, "far": 1}\n'
    whole = '[{"text": "a", "label": "x"},\n {"text": "b", "label": NaN, "far": 1}]'
    for name in ("t.json", "t.jsonl", "T.JSONL", "t.NDJSON"):
        for content in (lines, whole):
            table = read(tmp_path / name, content)
            assert pairs(table) == [("a", "x"), ("b", None)], name
            assert [row.cells["far"] for row in table.rows] == [None, 1]
            assert table.columns == ["text", "label", "far"]


def test_one_object_is_one_row(tmp_path: Path) -> None:
    assert pairs(read(tmp_path / "t.json", '{"text": "a",\n "label": "x"}')) == [("a", "x")]
    for content in ("{}", "3", '"text"', "[[1]]"):
        with pytest.raises(DataError, match=r"t\.json"):
            pairs(read(tmp_path / "t.json", content))


def test_a_tsv_is_cut_at_tabs_whatever_its_header_holds(tmp_path: Path) -> None:
    table = read(tmp_path / "t.tsv", "text\tlabel, or none,by,three\na, b\tjoy\n")
    assert table.columns == ["text", "label, or none,by,three"]
    assert table.rows[0].cells["text"] == "a, b"
    # One that is not cut at tabs is read as before.
    assert pairs(read(tmp_path / "t.tsv", "text,label\na,joy\n")) == [("a", "joy")]


@pytest.mark.parametrize("head", ["\n", " \r\n\r\n", "\n\t\n", "\nsep=,\n\n"])
def test_blank_lines_before_the_header(tmp_path: Path, head: str) -> None:
    table = read(tmp_path / "t.csv", head + "text,label\na,joy\nb,fear\n")
    assert pairs(table) == [("a", "joy"), ("b", "fear")]
    assert [row.line for row in table.rows] == [2, 3]


def test_a_hundred_thousand_columns(tmp_path: Path) -> None:
    head = ",".join(["text", "label", *(f"c{n}" for n in range(100_000))])
    began = time.process_time()
    table = read(tmp_path / "t.csv", f"{head}\na,joy{',1' * 100_000}\nb,fear{',2' * 100_000}\n")
    meta = attributes(table.rows, table.columns, {"text", "label"})
    # Quadratic: minutes.
    assert time.process_time() - began < 10.0
    assert [len(own) for own in meta] == [100, 100]
    assert meta[1]["c99"] == "2"


def test_what_is_no_text_is_met_at_its_beginning() -> None:
    class Endless(io.RawIOBase):
        def __init__(self, content: bytes) -> None:
            self.content, self.n = content, 0

        def read(self, size: int = -1) -> bytes:
            self.n += size
            assert self.n <= 1 << 21, "it reads on"
            return (self.content * (size // len(self.content) + 1))[:size]

    for content in (b"\0", b"abc\xff"):
        with pytest.raises(DataError, match="not UTF-8 text"):
            read_stream(Endless(content), Path("x"))  # type: ignore[arg-type]


def test_lists_saved_as_text() -> None:
    for cell, labels in (
        ("[17, 25]", [17, 25]),
        (" [17 25] ", [17, 25]),
        ("[3.0]", [3]),
        ("['joy', \"it's\"]", ["joy", "it's"]),
        ("['joy' 'love']", ["joy", "love"]),
        ("{'joy', 'love'}", ["joy", "love"]),
        ("('joy',)", ["joy"]),
        (r"['a\'b']", ["a'b"]),
        ("[]", []),
        ("[laughs]", "[laughs]"),
        ("(none)", "(none)"),
        ("joy", "joy"),
        ("()", "()"),
        ("[1.5]", "[1.5]"),
        ("[17, joy]", "[17, joy]"),
        (None, None),
        (["x"], ["x"]),
    ):
        assert lists_saved_as_text([cell]) == [labels], cell


def test_nan_is_an_empty_cell(tmp_path: Path) -> None:
    rows = read(tmp_path / "t.csv", "text,label\nnan,joy\nb,NaN\nNan,\n").rows
    assert optional(rows, {"label"}, "label") == ["joy", "", ""]
    assert [as_text(row.cells["text"]) for row in rows] == ["", "b", "Nan"]
    with pytest.raises(DataError, match=r"column 'label' of .* is empty in row 3, 4"):
        filled(tmp_path / "t.csv", rows, "label")

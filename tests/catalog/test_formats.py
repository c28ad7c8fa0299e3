from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrich.catalog import formats, jsonl
from enrich.catalog.formats import open_source
from enrich.errors import CatalogError

Row = list[Any]

PLAIN = "id,title,color\n007,Lamp,red\n008,Vase,\n"
ROWS = [["007", "Lamp", "red"], ["008", "Vase", ""]]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_CSV_BLOCK", 1000)
    monkeypatch.setattr(formats, "CHUNK", 64)
    for module in (formats, jsonl):
        monkeypatch.setattr(module, "BATCH_ROWS", 10)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(path: Path, **options: Any) -> list[Row]:
    """Return all rows, having seen that a second reading gives the same and that all fits the schema."""
    source = open_source(path, **options)
    batches = list(source.batches())
    assert all(batch.schema.equals(source.schema) for batch in batches)
    assert batches == list(source.batches())
    return [list(row.values()) for batch in batches for row in batch.to_pylist()]


def refusal(path: Path, **options: Any) -> str:
    """Return why a file was refused: one line that names the file."""
    with pytest.raises(CatalogError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 700
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


# CSV: what is read


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_marks_are_found(write, delimiter: str, end: str, mark: str) -> None:
    text = mark + PLAIN.replace(",", delimiter).replace("\n", end)
    path = write("x.csv", text)
    assert read(path) == ROWS
    assert read(path, delimiter=delimiter) == ROWS
    assert read(write("y.csv", text.removesuffix(end))) == ROWS
    assert open_source(path).schema == pa.schema([(name, pa.string()) for name in ("id", "title", "color")])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".CSV", ".csv.gz", ".csv.zst"])
def test_csv_names_and_compressions(write, suffix: str) -> None:
    content = PLAIN.encode()
    if suffix.endswith(".gz"):
        content = gzip.compress(content)
    elif suffix.endswith(".zst"):
        content = pa.compress(content, "zstd", asbytes=True)
    assert read(write(f"my.catalog{suffix}", content)) == ROWS


def test_compression_is_told_by_the_bytes_and_leaves_the_identity(write) -> None:
    plain, misnamed = write("a.csv", PLAIN), write("b.csv", gzip.compress(PLAIN.encode()))
    assert read(misnamed) == ROWS
    assert open_source(plain).identity == open_source(misnamed).identity
    assert open_source(plain).identity != open_source(write("c.csv", PLAIN + "9,x,y\n")).identity


def test_gzip_members_one_after_the_other_are_all_read(write) -> None:
    head, tail = PLAIN[:20].encode(), PLAIN[20:].encode()
    assert read(write("x.csv.gz", gzip.compress(head) + gzip.compress(tail))) == ROWS


def test_quoting(write) -> None:
    text = 'id,"the, title",note\n1,"A ""big"" lamp, red","line\none\r\ntwo"\n2,5" pan,""\n'
    assert open_source(write("x.csv", text)).schema.names == ["id", "the, title", "note"]
    assert read(write("x.csv", text)) == [["1", 'A "big" lamp, red', "line\none\r\ntwo"], ["2", '5" pan', ""]]


def test_cells_stay_as_they_are(write) -> None:
    values = ["00123", "1E05", " spaced ", "", "NULL", "NaN", "true", "2024-01-01", "123456789012345678901"]
    text = "title,x\n" + "".join(f"{value},y\n" for value in values)
    assert [row[0] for row in read(write("x.csv", text))] == values


def test_blank_lines_are_no_rows(write) -> None:
    assert read(write("x.csv", "\n\r\nid,title\n\n1,a\n\n\n2,b\n\n\n")) == [["1", "a"], ["2", "b"]]


def test_one_column_has_empty_values_where_they_are_quoted(write) -> None:
    assert read(write("x.csv", 'title\na\n\n""\n"b, c"\n')) == [["a"], [""], ["b, c"]]


@pytest.mark.parametrize("text", ["id,title", "id,title\n", "\ufeffid,title\r\n\r\n"])
def test_a_header_alone_is_a_catalog_without_rows(write, text: str) -> None:
    path = write("x.csv", text)
    assert read(path) == []
    assert open_source(path).schema.names == ["id", "title"]


def test_a_column_may_have_no_name(write) -> None:
    path = write("x.csv", "id,title,\n1,a,b\n")
    assert open_source(path).schema.names == ["id", "title", ""]
    assert read(path) == [["1", "a", "b"]]


def test_a_delimiter_in_prose_is_not_taken_for_it(write) -> None:
    text = "id;title\n" + "".join(f"{n};red, large, nice\n" for n in range(30))
    assert read(write("x.csv", text))[0] == ["0", "red, large, nice"]
    text = "id,title\n" + "".join(f"{n},a|b|c\n" for n in range(30))
    assert read(write("x.csv", text))[0] == ["0", "a|b|c"]


def test_a_field_too_long_for_the_sniffer_is_read(write) -> None:
    assert read(write("x.csv", "id;title\n1;" + "a" * 200_000 + "\n2;b\n"))[1] == ["2", "b"]


def test_the_delimiter_told_wins(write) -> None:
    assert read(write("x.csv", "title;a\nx;y\n"), delimiter=",") == [["x;y"]]


@pytest.mark.usefixtures("small_blocks")
def test_rows_over_many_blocks_keep_their_order(write) -> None:
    rows = [[str(n), f'Lamp "{n}"\nno. {n}, red', "é€😀" * (n % 9)] for n in range(500)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["id", "title", "x"], *rows])
    for content in (text.getvalue().encode(), text.getvalue().encode("utf-16")):
        assert read(write("x.csv", content)) == rows
    assert max(len(batch) for batch in open_source(write("x.csv", text.getvalue())).batches()) == 10


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20), min_size=3, max_size=3)
    )
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_python_writes_is_read_back(tmp_path: Path, rows: list[Row]) -> None:
    path = tmp_path / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["id", "title", "x"], *rows])
    try:
        assert read(path, delimiter=",") == rows
    except CatalogError as error:
        assert "look like rows of their own" in str(error)


# CSV: encodings


def encoding_of(path: Path, **options: Any) -> str:
    return open_source(path, **options).encoding  # type: ignore[attr-defined]


def test_cp1252_is_read_where_utf_8_is_not_valid(write) -> None:
    path = write("x.csv", "id,title\n1,Café – 5 €\n".encode("cp1252"))
    assert encoding_of(path) == "cp1252"
    assert read(path) == [["1", "Café – 5 €"]]


@pytest.mark.parametrize("lines", [1, 60_000])
def test_a_late_byte_decides_on_the_encoding_of_all(write, lines: int) -> None:
    path = write("x.csv", b"id,title\n" + b"1,a plain line of text\n" * lines + b"2,caf\xe9\n")
    assert encoding_of(path) == "cp1252"
    assert read(path)[-1] == ["2", "café"]


def test_characters_across_chunks_are_whole(write) -> None:
    for shift in range(4):
        text = "id,title\n" + "1," + "x" * shift + "😀" * 280_000 + "\n"
        assert len(text.encode()) > formats.CHUNK
        path = write("x.csv", text)
        assert encoding_of(path) == "utf-8"
        assert read(path) == [["1", "x" * shift + "😀" * 280_000]]


def test_utf_8_with_a_broken_line_is_not_taken_for_cp1252(write) -> None:
    mixed = "id,title\n1,déjà\n2,naïf\n".encode() + b"3,caf\xe9\n"
    message = refusal(write("x.csv", mixed))
    assert "UTF-8 for the most part, but not all (line 4: " in message
    assert read(write("x.csv", mixed), encoding="cp1252")[2] == ["3", "café"]
    looks_like_it = "id,title\n1,NESTLÉ® café\n2,crème brûlée\n".encode("cp1252")
    assert read(write("x.csv", looks_like_it))[0] == ["1", "NESTLÉ® café"]


def test_a_character_cut_at_the_end_is_not_utf_8(write) -> None:
    assert encoding_of(write("x.csv", b"id,title\n1,caf\xc3")) == "cp1252"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_utf_16_with_its_mark_is_read(write, encoding: str, delimiter: str) -> None:
    text = "\ufeffid,títle\r\n01,日本 😀\r\n02,\r\n".replace(",", delimiter)
    path = write("x.txt", text.encode(encoding))
    assert open_source(path).schema.names == ["id", "títle"]
    assert read(path) == [["01", "日本 😀"], ["02", ""]]
    assert encoding_of(path) == "utf-16"


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf_8", "utf-8-sig", "latin-1", "cp1252", "utf-16-le", "cp932"])
def test_the_encoding_told_is_used(write, name: str) -> None:
    word = "日本" if name == "cp932" else "é"
    path = write("x.csv", f"id,title\n1,{word}\n".encode(name))
    assert read(path, encoding=name) == [["1", word]]
    if name.lower().startswith(("utf-8", "utf_8", "utf8")):
        assert encoding_of(path, encoding=name) == "utf-8"


@pytest.mark.parametrize("name", ["nope", "hex", "rot13", "base64", "undefined"])
def test_an_encoding_that_is_none_is_refused(write, name: str) -> None:
    assert f"unknown encoding {name!r}" in refusal(write("x.csv", PLAIN), encoding=name)


def test_wrong_encodings_are_refused_with_the_line(write) -> None:
    bad = b"id,title\n1,a\n2,caf\xe9 \x81\n"
    message = refusal(write("x.csv", bad))
    assert "not utf-8 (line 3: " in message
    assert "not cp1252 (line 3: " in message
    assert "--encoding" in message
    assert "line 3" in refusal(write("x.csv", bad.replace(b"\n", b"\r")))
    assert "not utf-8 (line 3" in refusal(write("x.csv", bad), encoding="utf-8")
    assert "not utf-16 (" in refusal(write("x.csv", PLAIN.encode("utf-16-le")), encoding="utf-16")
    assert "not utf-16-le (at its end" in refusal(
        write("x.csv", PLAIN.encode("utf-16-le") + b"x"), encoding="utf-16-le"
    )


def test_the_mark_of_utf_8_binds(write) -> None:
    marked = b"\xef\xbb\xbfid,title\n1,caf\xe9\n"
    assert "not utf-8 (line 2" in refusal(write("x.csv", marked))
    assert "byte order mark of UTF-8" in refusal(write("x.csv", marked), encoding="cp1252")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"id,title\n1,a\n2,b\0\n", 3),
        (PLAIN.encode("utf-16-le"), 1),
        (b"id,title\n" + b"1,ab\n" * 300_000 + b"\0,b\n", 300_002),
    ],
)
def test_nul_is_refused_with_its_line(write, content: bytes, line: int) -> None:
    assert f", line {line}: a NUL character" in refusal(write("x.csv", content))


# CSV: what is refused


def test_a_row_with_too_many_or_too_few_fields_is_refused_with_its_number(write) -> None:
    message = refusal(write("x.csv", "id,title\n1,a\n2,b, c\n3,d\n"))
    assert ", row 3: 3 fields where the header has 2: '2,b, c'" in message
    assert "--delimiter" in message
    assert ", row 2: 1 fields where the header has 2: 'x'" in refusal(write("x.csv", "id,title\nx\n"))
    assert ", row 4: 1 fields" in refusal(write("x.csv", 'id,title\n1,"a\nb\n\nc"\n2,"d\r\ne"\n3\n4,x\n'))
    assert ", row 3: 1 fields" in refusal(write("x.csv", "id,title\n\n1,a\n\n   \n"))  # blank lines don't count


def test_a_refusal_prints_nothing_besides(write, capfd: pytest.CaptureFixture[str]) -> None:
    refusal(write("x.csv", "id,title\n1,a\n2\n"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("row", ["{},a lamp", '{},"a\nlamp"', "\n{},a\n\n"])
def test_a_bad_row_far_behind_has_the_right_number(write, row: str) -> None:
    text = "id,title\n" + "".join(row.format(n) + "\n" for n in range(1000)) + "bad\n" + "1,b\n" * 1000
    assert ", row 1002: 1 fields" in refusal(write("x.csv", text))
    assert ", row 1002: 1 fields" in refusal(write("x.csv", text.encode("utf-16")))


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('id,title\n1,"a\n2,b\n', 2), ('id,title\n1,a\n2,"b', 3), ('id,title\n1,a\n2,"b\n', 3),
        ('id,title\n1,a\n2,"', 3),
        ('id,title,x\n1,a,b\n2,"b,c\n3,d,e\n', 3), ('title\n"a\nb\n', 2), ('title\n"', 2), ('"id","title\n1,a\n', 1),
        ('id,title\n1,"a ""quoted"" one""\n2,b\n', 2), ('id,title\n1,"a"\n2,b"c\n"3,d\n', 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_never_closed_is_refused_with_its_row(write, text: str, row: int, end: str) -> None:
    message = refusal(write("x.csv", text.replace("\n", end)), delimiter=",")
    assert f", row {row}: a quote mark opened there is never closed" in message


@pytest.mark.usefixtures("small_blocks")
def test_a_quote_never_closed_over_blocks_is_refused(write) -> None:
    head = "id,title\n" + "1,a\n" * 500
    message = refusal(write("x.csv", head + '2,"b\n' + "3,c\n" * 500))
    assert "a row longer than 1,000 bytes; is a quote mark left open?" in message
    assert ", row 502: a quote mark" in refusal(write("x.csv", head + '2,"b\n3,c\n'))


@pytest.mark.usefixtures("small_blocks")
def test_a_row_longer_than_a_block_is_refused(write) -> None:
    text = "id,title\n" + "1,a\n" * 500 + "2," + "x" * 3000 + "\n"
    assert "a row longer than 1,000 bytes" in refusal(write("x.csv", text))


@pytest.mark.parametrize(
    "text",
    [
        'id,title,x\n1,"a lamp,red\n2,b lamp",blue\n3,c,d\n',
        'id,title,x\n0,a,b\n1,"a,red\n2,b,green\n3,c,\n4,d",blue\n',
        'id,title,x\n"1,a,red\n2",b,blue\n',
        'id,title,x\n1,a,"red\n2,b,blue\n3,c,green"\n',
        'id,title,x\n1,"a,red\n2,b,blue\n\n3,"Table lamp",green\n',  # closed by the next field's opening
        'id,title\n1,"a\n2,b"\n3,c\n',
        "id, title, x\n1, a, b\n2,\"a, red\n3, b\", blue\n",
        'id;title;x\n1;"a lamp;red\n2;b lamp";blue\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_swallowed_by_a_pair_of_stray_quotes_are_refused(write, text: str, end: str) -> None:
    assert "look like rows of their own" in refusal(write("x.csv", text.replace("\n", end)))


@pytest.mark.parametrize(
    "description",
    [
        "A lamp.\nSoft, warm, and cosy.",
        "Colors: red, blue, green\nSizes: S, M, L\nMade of oak, steel, and glass",
        "<p>A lamp</p>\n<p style=\"font-family:Arial,sans-serif\">Soft, warm</p>\n<ul><li>x</li></ul>",
        "Comes in\nred,green,blue,white",
        "\n\n",
    ],
)  # fmt: skip
def test_texts_of_several_lines_are_no_swallowed_rows(write, description: str) -> None:
    row = ["1", "Lamp", description]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["id", "title", "description"], row])
    assert read(write("x.csv", text.getvalue())) == [row]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["id", "description", "title"], ["1", description, "Lamp"]])
    assert read(write("x.csv", text.getvalue())) == [["1", description, "Lamp"]]


@pytest.mark.parametrize("text", ["id,title,id\n1,a,2\n", "id,title,,\n1,a,2,3\n"])
def test_two_columns_of_one_name_are_refused(write, text: str) -> None:
    assert "stands there more than once; rename one" in refusal(write("x.csv", text))


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"  \r\n\n", b"\xef\xbb\xbf", b"\xff\xfe", gzip.compress(b"", mtime=0)]
)
def test_an_empty_file_is_refused(write, content: bytes) -> None:
    assert refusal(write("x.csv", content)) == ": the file is empty"


def test_a_header_without_names_is_refused(write) -> None:
    assert "the first line has no column names" in refusal(write("x.csv", ",,\n1,2,3\n"))


def test_ragged_rows_are_told_as_such_and_not_as_another_delimiter(write) -> None:
    assert ", row 2: 3 fields where the header has 2" in refusal(write("x.csv", "id;title\n1;a;b\n2;c;d\n3;e;f\n"))


@pytest.mark.parametrize("delimiter", [";;", "", "§", '"', "\n", "\0"])
def test_a_delimiter_that_is_none_is_refused(write, delimiter: str) -> None:
    assert "can't be the delimiter" in refusal(write("x.csv", PLAIN), delimiter=delimiter)


@pytest.mark.parametrize("cut", [12, 2000, -9, -1])
@pytest.mark.parametrize("kind", ["csv.gz", "csv.zst", "jsonl.gz", "jsonl.zst"])
def test_a_truncated_file_is_refused(write, kind: str, cut: int) -> None:
    lines = [f"{n},lamp {n * n}\n" if "csv" in kind else json.dumps({"title": f"{n * n}"}) + "\n" for n in range(3000)]
    content = ("id,title\n" * ("csv" in kind) + "".join(lines)).encode()
    packed = gzip.compress(content) if kind.endswith("gz") else pa.compress(content, "zstd", asbytes=True)
    assert abs(cut) < len(packed)
    assert "can't be read to its end; copy it anew" in refusal(write(f"x.{kind}", packed[:cut]))


def test_a_damaged_gzip_is_refused(write) -> None:
    packed = bytearray(gzip.compress(PLAIN.encode() * 100))
    packed[len(packed) // 2] ^= 0xFF
    assert "can't be read to its end" in refusal(write("x.csv.gz", bytes(packed)))


# Any format


def test_what_is_no_catalog_file_is_refused(write, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.csv") == ": no such file"
    assert "is a directory" in refusal(tmp_path)
    assert "unknown format; names end in .csv" in refusal(write("x.xlsx", b"PK\3\4"))
    assert "unknown format" in refusal(write("catalog", PLAIN))
    assert "NUL character" in refusal(write("x.csv", b"PK\3\4\0\0"))


def test_a_file_gone_between_two_readings_is_refused(write, tmp_path: Path) -> None:
    table = pa.table({"title": ["a"]})
    pq.write_table(table, tmp_path / "x.parquet")
    for path in (write("x.csv", PLAIN), write("x.jsonl", '{"title": "a"}'), tmp_path / "x.parquet"):
        source = open_source(path)
        path.unlink()
        with pytest.raises(CatalogError, match=path.name):
            list(source.batches())


# JSON Lines


def test_json_types_are_kept(write) -> None:
    row = {
        "title": "Lamp", "date": "2024-01-01", "time": "2024-01-01T10:00:00Z", "code": "00123", "int": 9007199254740993,
        "float": 1.5, "bool": True, "list": ["a", "b"], "object": {"a": 1, "b": {"c": "x"}}, "objects": [{"k": "v"}],
        "null": None, "empty": [],
    }  # fmt: skip
    path = write("x.jsonl", json.dumps(row) + "\n" + json.dumps({"title": "Vase"}) + "\n")
    assert read(path) == [list(row.values()), ["Vase", *[None] * 11]]
    types = {field.name: str(field.type) for field in open_source(path).schema}
    assert types == {
        "title": "string", "date": "string", "time": "string", "code": "string", "int": "int64", "float": "double",
        "bool": "bool", "list": "list<item: string>", "object": "struct<a: int64, b: struct<c: string>>",
        "objects": "list<item: struct<k: string>>", "null": "string", "empty": "list<item: string>",
    }  # fmt: skip


@pytest.mark.parametrize("late", [3, 25])
def test_types_of_all_blocks_are_joined(write, monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    for module in (formats, jsonl):
        monkeypatch.setattr(module, "BATCH_ROWS", 10)
    early = {"title": "a", "n": 1, "none": None, "list": [], "details": {"x": 1}}
    last = {"new": True, "n": 0.5, "title": "z", "none": "text", "list": ["i"], "details": {"y": "s"}}
    rows = read(write("x.jsonl", f"{json.dumps(early)}\n" * late + json.dumps(last)))
    assert rows[:-1] == [["a", 1.0, None, [], {"x": 1, "y": None}, None]] * late
    assert rows[-1] == ["z", 0.5, "text", ["i"], {"x": None, "y": "s"}, True]


@pytest.mark.parametrize("objects", [[{}], [{}, None], [None, {}]])
def test_objects_without_any_key_can_be_written_to_parquet(write, tmp_path: Path, objects: list[Any]) -> None:
    lines = [json.dumps({"title": "a", "o": value, "p": {"q": value}, "l": [value]}) for value in objects]
    for batch in open_source(write("x.jsonl", "\n".join(lines))).batches():
        pq.write_table(pa.Table.from_batches([batch]), tmp_path / "out.parquet")
        assert pq.read_table(tmp_path / "out.parquet").num_rows == len(objects)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", '"x"'), ('"x"', "1"), ("1", "true"), ("true", "1"), ('["x"]', '"x"'), ('"x"', '["x"]'),
        ('{"a": 1}', "[1]"),
        ('{"a": 1}', '{"a": "x"}'), ("[1]", '["x"]'), ("9007199254740993", "0.5"), ("1", "1" * 30),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [1, 15])
def test_a_column_that_changes_its_type_is_refused_with_its_line(
    write, monkeypatch: pytest.MonkeyPatch, first: str, second: str, before: int
) -> None:
    for module in (formats, jsonl):
        monkeypatch.setattr(module, "BATCH_ROWS", 10)
    rows = [f'{{"title": "a", "price": {first}}}\n\n'] * before + ['{"title": "b"}\n', f'{{"price": {second}}}\n']
    message = refusal(write("x.jsonl", "".join(rows) + '{"title": "c"}\n' * 3))
    assert "column 'price'" in message
    if first != "9007199254740993" or before == 1:  # else the new type is fine and its first line is at fault
        assert f", line {2 * before + 2}: " in message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"title": ', "not JSON: Expecting value at character"),
        (b"title,price", "not JSON"),
        (b'{"title": "a"} {"title": "b"}', "not JSON: Extra data"),
        (b"[1, 2]", "a JSON object is wanted"),
        (b"5", "a JSON object is wanted"),
        (b'{"title": "caf\xe9"}', "not UTF-8"),
        (b'{"title": "\xed\xa0\xbd"}', "not UTF-8"),
        (b'{"title": "\\ud83d"}', "half a character"),
        (b'{"\\ud83d": 1}', "half a character"),
        (b'{"a": {"\\ud83d": 1}}', "half a character"),
        (b'{"title": "a", "title": "b"}', "the key 'title' stands there more than once"),
        (b'{"title": "a", "o": {"k": 1, "k": 2}}', "the key 'k' stands there more than once"),
        (b'{"n": ' + b"1" * 5000 + b"}", "can't be read"),
        (b'{"n": ' + b"1" * 30 + b"}", "column 'n'"),
        (b'{"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "can't be read"),
    ],
)
def test_a_line_that_can_not_be_read_is_refused_with_its_number(write, line: bytes, reason: str) -> None:
    message = refusal(write("x.jsonl", b'{"title": "x"}\n\n{"title": "y"}\n' + line + b'\n{"title": "z"}\n'))
    assert message.startswith(", line 4: ")
    assert reason in message


def test_not_a_number_is_a_float(write) -> None:
    rows = read_once(write("x.jsonl", '{"title": "a", "p": NaN, "q": -Infinity}\n'))
    assert rows[0]["p"] != rows[0]["p"]
    assert rows[0]["q"] == float("-inf")


def read_once(path: Path) -> list[dict[str, Any]]:
    return [row for batch in open_source(path).batches() for row in batch.to_pylist()]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n \t\n\n"])
@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "jsonl.gz", "jsonl.zst"])
def test_marks_blank_lines_and_compression_of_json(write, mark: bytes, end: bytes, suffix: str) -> None:
    content = mark + end.join([b'{"title": "a"}', b'{"title": "b"}'])
    if suffix.endswith("gz"):
        content = gzip.compress(content)
    elif suffix.endswith("zst"):
        content = pa.compress(content, "zstd", asbytes=True)
    assert read(write(f"x.{suffix}", content)) == [["a"], ["b"]]


@pytest.mark.parametrize("content", ["\n", "\ufeff", " \n\n", "{}\n{}\n"])
def test_json_without_rows_is_refused(write, content: str) -> None:
    assert ": no rows" in refusal(write("x.jsonl", content))


def test_json_in_utf_16_is_refused(write) -> None:
    assert "save the file as UTF-8" in refusal(write("x.jsonl", '{"title": "a"}\n'.encode("utf-16")))


# Parquet


def parquet_table() -> pa.Table:
    ns = pa.array([1, 2, None], pa.timestamp("ns", "UTC"))
    return pa.table(
        {
            "title": pa.array(["a", "b", None]),
            "brand": pa.array(["x", "y", "x"]).dictionary_encode(),
            "price": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("0.10")], pa.decimal128(10, 2)),
            "when": pa.array([datetime.datetime(2024, 1, 2), None, None], pa.timestamp("us")),
            "ns": ns,
            "day": pa.array([datetime.date(2024, 1, 2), None, None]),
            "tags": pa.array([["a"], [], None]),
            "details": pa.array([{"k": {"n": 1}}, None, {"k": None}]),
            "map": pa.array([[("a", "b")], [], None], pa.map_(pa.string(), pa.string())),
            "small": pa.array([1, 2, 3], pa.uint8()),
            "raw": pa.array([b"\xff", b"", None]),
            "large": pa.array(["a", None, "b"], pa.large_string()),
        }
    )


def test_parquet_types_and_order_are_kept(tmp_path: Path) -> None:
    table = pa.concat_tables([parquet_table()] * 5000).unify_dictionaries()
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=4000)
    source = open_source(tmp_path / "x.parquet")
    assert source.schema.equals(table.schema)
    batches = list(source.batches())
    assert max(map(len, batches)) <= formats.BATCH_ROWS
    assert pa.Table.from_batches(batches).equals(table)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.pq", "x.bin", "x"])
def test_parquet_is_known_by_its_bytes(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"title": ["a", "b"]}), tmp_path / name)
    assert read(tmp_path / name) == [["a"], ["b"]]


def test_parquet_without_rows_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": pa.array([], pa.string())}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == []


@pytest.mark.parametrize("cut", [4, 10, 200, -100, -4, -1])
def test_a_truncated_parquet_is_refused(tmp_path: Path, write, cut: int) -> None:
    pq.write_table(pa.table({"title": [str(n) for n in range(1000)]}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    assert "not a whole Parquet file; copy it anew" in refusal(write("y.parquet", whole[:cut]))


@pytest.mark.parametrize("middle", [b"", b"x" * 50, b"\xff" * 50, b"\0" * 50])
def test_a_file_that_only_looks_like_parquet_is_refused(write, middle: bytes) -> None:
    assert refusal(write("x.parquet", b"PAR1" + middle + b"PAR1"))


def test_a_damaged_parquet_is_refused(tmp_path: Path, write) -> None:
    pq.write_table(pa.table({"title": [str(n) for n in range(1000)]}), tmp_path / "x.parquet")
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[10:60] = bytes(byte ^ 0xFF for byte in content[10:60])
    assert "damaged; copy it anew" in refusal(write("x.parquet", bytes(content)))


@pytest.mark.parametrize("content", [PLAIN.encode(), gzip.compress(b"PAR1", mtime=0), b"PK\3\4", b"\0\0"])
def test_a_foreign_file_named_parquet_is_refused(write, content: bytes) -> None:
    assert "not a Parquet file, whatever its name says" in refusal(write("x.parquet", content))

from __future__ import annotations

import pytest

pytest.importorskip("python_multipart")

from hypothesis import given
from hypothesis import strategies as st
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cbir_tf.server.http.errors import RequestError
from cbir_tf.server.http.forms import MOST_HEAD, MOST_PARTS, form_parts

TYPE = "multipart/form-data; boundary=b0un-d"
PIECES = st.sampled_from(
    [b"\r\n", b"\r\n\r\n", b"--", b"--b0un-d", b"\r\n--b0un-d", b"\r\n--b0un-d--", b"\n", b"\r",
     b"content-disposition: form-data; name=k", b'Content-Disposition: form-data; name="file"',
     b"Content-Type: image/jpeg", b"5", b" ", b"\xff\xd8\xff"]
)  # fmt: skip


def written(parts: list[tuple[str, bytes]]) -> bytes:
    """As a browser sends them."""
    heads = [f'--b0un-d\r\nContent-Disposition: form-data; name="{name}"' for name, _ in parts]
    return b"".join(
        head.encode() + b"\r\nContent-Type: image/jpeg\r\n\r\n" + content + b"\r\n"
        for head, (_, content) in zip(heads, parts, strict=True)
    ) + b"--b0un-d--\r\n"  # fmt: skip


def streamed(body: bytes) -> list[tuple[str, bytes]] | None:
    """The same by python_multipart's parser of streams; None where it finds no whole form."""
    parts: list[tuple[str, bytes]] = []
    field, value, content = bytearray(), bytearray(), bytearray()
    names: list[str] = []
    ended: list[bool] = []

    def end_header() -> None:
        if field.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(value))
            names.append(options.get(b"name", b"").decode(errors="replace"))
        field.clear()
        value.clear()

    def end() -> None:
        parts.append((names[0] if names else "", bytes(content)))
        names.clear()
        content.clear()

    parser = MultipartParser(
        b"b0un-d",
        {
            "on_header_field": lambda data, start, stop: field.extend(data[start:stop]),
            "on_header_value": lambda data, start, stop: value.extend(data[start:stop]),
            "on_header_end": end_header,
            "on_part_data": lambda data, start, stop: content.extend(data[start:stop]),
            "on_part_end": end,
            "on_end": lambda: ended.append(True),
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError:
        return None
    return parts if ended else None


names = st.text("abcdefghijklmnopqrstuvwxyz_ ä", max_size=12).filter(
    lambda name: name == name.strip()
)
contents = st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=8).map(b"".join)


@given(
    st.lists(st.tuples(names, contents.filter(lambda each: b"--b0un-d" not in each)), min_size=1)
)
def test_what_was_written_is_read(parts):
    assert form_parts(written(parts[:MOST_PARTS]), TYPE) == parts[:MOST_PARTS]


@given(
    st.lists(st.tuples(names, contents), max_size=3), st.lists(st.tuples(st.floats(0, 1), PIECES))
)
def test_whatever_is_read_is_what_another_parser_reads(parts, insertions):
    body = written(parts)
    for place, piece in insertions:
        at = round(place * len(body))
        body = body[:at] + piece + body[at:]
    expected = streamed(body)
    try:
        read = form_parts(body, TYPE)
    except RequestError as error:
        assert error.status == 400
    else:
        assert expected is None or read == expected


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"", TYPE, "begin"),
        (b"before\r\n" + written([]), TYPE, "begin"),
        (b"--b0un-d", TYPE, "on its line"),
        (written([("k", b"5")])[:-10], TYPE, "cut short"),
        (written([("k", b"5")]).replace(b"\r\n\r\n", b"\r\n"), TYPE, "cut short"),
        (b"--b0un-d\r\nContent-Disposition: form-data\r\n" + written([("k", b"5")]), TYPE, "head"),
        (written([("k" * MOST_HEAD, b"5")]), TYPE, "head"),
        (written([("k", b"5")]), "multipart/form-data", "no boundary"),
    ],
)
def test_what_is_no_form_is_refused_in_words(body, content_type, words):
    with pytest.raises(RequestError, match=words) as refusal:
        form_parts(body, content_type)
    assert refusal.value.status == 400


def test_a_form_has_a_most_of_fields():
    assert len(form_parts(written([("k", b"5")] * MOST_PARTS), TYPE)) == MOST_PARTS
    with pytest.raises(RequestError, match="more than") as refusal:
        form_parts(written([("k", b"5")] * (MOST_PARTS + 1)), TYPE)
    assert refusal.value.status == 422


def test_what_follows_a_form_is_no_part_of_it():
    assert form_parts(b"\r\n" + written([("k", b"5")]) + b"after", TYPE) == [("k", b"5")]

"""Forms taken apart (multipart/form-data, RFC 7578)."""

from __future__ import annotations

from python_multipart.multipart import parse_options_header

from cbir_tf.server.http.errors import RequestError

MOST_PARTS = 100
MOST_HEAD = 8192  # bytes of a part's head


def form_parts(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """Name and content of each part of a form.

    The body is all there, so it is searched for its boundaries. The parsers of the libraries are
    for bodies that are still arriving: they take twice as long, with Python's lock held, for which
    the other threads wait.

    Raises:
        RequestError: 400, not a form, or one that is cut short; 422, too many parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise RequestError(400, "not a form: its content type has no boundary")
    delimiter = b"\r\n--" + boundary
    body = body.lstrip(b"\r\n")
    if not body.startswith(delimiter[2:]):
        raise RequestError(400, "not a form: it does not begin with its boundary")
    start = len(delimiter) - 2
    parts: list[tuple[str, bytes]] = []
    while not body.startswith(b"--", start):
        if not body.startswith(b"\r\n", start):
            raise RequestError(400, "not a form: something follows a boundary on its line")
        if len(parts) >= MOST_PARTS:
            raise RequestError(422, f"a form of more than {MOST_PARTS} fields")
        content = _after(body, b"\r\n\r\n", start)
        head = body[start : min(content, start + MOST_HEAD)]
        if not head.endswith(b"\r\n\r\n") or delimiter in head:
            raise RequestError(400, "not a form: the head of a part does not end")
        start = _after(body, delimiter, content)
        parts.append((_name(head), body[content : start - len(delimiter)]))
    return parts


def _after(body: bytes, mark: bytes, start: int) -> int:
    """Where the next such mark ends."""
    found = body.find(mark, start)
    if found < 0:
        raise RequestError(400, "not a form: it is cut short")
    return found + len(mark)


def _name(head: bytes) -> str:
    """Of a part; empty where its head does not say."""
    for line in head.split(b"\r\n"):
        header, _, value = line.partition(b":")
        if header.strip().lower() == b"content-disposition":
            _, options = parse_options_header(value.lstrip(b" "))
            return options.get(b"name", b"").decode(errors="replace")
    return ""

"""What goes back when a statement succeeded: status, headers, and Postgres' own JSON text. No I/O.

Source: PostgREST's documentation, "Pagination and Count" (Content-Range, 206, 416) and "Preferences".
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote as percent_encode

from msgspec import Struct

from magmobo.components.maggate.catalogue import Table
from magmobo.components.maggate.errors import NotSingular, RangeNotSatisfiable
from magmobo.components.maggate.request import PREFIX, Preferences

Header = tuple[bytes, bytes]

JSON_TYPE: Header = (b"content-type", b"application/json; charset=utf-8")
_SINGULAR_TYPE: Header = (b"content-type", b"application/vnd.pgrst.object+json; charset=utf-8")


class Response(Struct, frozen=True):
    """What goes back. `body` is sent as it is."""

    status: int
    headers: list[Header]
    body: bytes = b""


def page(
    text: bytes, row_count: int, total: int | None, *, offset: int, singular: bool, preferences: Preferences
) -> Response:
    """Answer of a read: `row_count` rows from `offset` on, of `total` when that is known.

    Raises: RangeNotSatisfiable when the offset lies beyond the total; NotSingular.
    """
    if singular and row_count != 1:
        raise NotSingular(row_count)
    if total is not None and offset > total:
        raise RangeNotSatisfiable(f"An offset of {offset} was requested, but there are only {total} rows.", total)
    partial = total is not None and row_count < total
    headers = [_SINGULAR_TYPE if singular else JSON_TYPE, _content_range(offset, row_count, total)]
    _add_applied(headers, preferences)
    return Response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK, headers, text)


def written(method: str, affected: int, text: bytes | None, *, singular: bool, preferences: Preferences) -> Response:
    """Answer of a write that changed `affected` rows; `text` is their representation, None when not asked for."""
    total = affected if preferences.exact_count else None
    headers = [_content_range(0, affected if method == "PATCH" else 0, total)]
    _add_applied(headers, preferences)
    if text is not None:
        headers.append(_SINGULAR_TYPE if singular else JSON_TYPE)
    if method == "POST":
        return Response(HTTPStatus.CREATED, headers, text or b"")
    return Response(HTTPStatus.NO_CONTENT if text is None else HTTPStatus.OK, headers, text or b"")


def location(table: Table, key: Sequence[bytes | None]) -> Header:
    """Where the row with this primary key can be read."""
    pairs = zip(table.primary_key, key, strict=True)
    query = "&".join(f"{percent_encode(name, '')}=eq.{percent_encode(value or b'', '')}" for name, value in pairs)
    return b"location", f"{PREFIX.decode()}{percent_encode(table.name.name, '')}?{query}".encode()


def _content_range(offset: int, row_count: int, total: int | None) -> Header:
    rows = b"%d-%d" % (offset, offset + row_count - 1) if row_count else b"*"
    return b"content-range", rows + (b"/*" if total is None else b"/%d" % total)


def _add_applied(headers: list[Header], preferences: Preferences) -> None:
    if preferences.applied:
        headers.append((b"preference-applied", ", ".join(preferences.applied).encode()))

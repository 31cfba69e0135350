"""One HTTP request as the gateway understands it: method, table, window, preferences. No I/O, no catalogue.

Source: PostgREST's documentation, "Preferences" and "Pagination and Count"; RFC 7240 (Prefer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from magmobo.components.maggate.errors import (
    InvalidPath,
    InvalidPreference,
    NotAcceptable,
    RangeNotSatisfiable,
    SchemaNotExposed,
    UnsupportedMediaType,
)

PREFIX = b"/rest/v1/"
JSON = b"application/json"
SINGULAR = b"application/vnd.pgrst.object+json"
_JSON_TYPES = {JSON, b"application/vnd.pgrst.array+json", b"application/*", b"*/*"}
_RANGE = re.compile(rb" *([0-9]{1,18})-([0-9]{1,18})? *")
_MAX_HEADER_BYTES = 1_024
_QUALITY = re.compile(rb";\s*q=([0-9.]{1,5})\s*$")

Headers = Mapping[bytes, bytes]


class Preferences(Struct, frozen=True):
    """What `Prefer` asked for and is honoured; `applied` lists it for Preference-Applied."""

    returning: Literal["minimal", "representation", "headers-only"] = "minimal"
    exact_count: bool = False
    max_affected: int | None = None
    applied: tuple[str, ...] = ()


class Window(Struct, frozen=True):
    """Which rows of the result: `limit` of them (None: as many as allowed) after `offset`."""

    offset: int = 0
    limit: int | None = None


_DEFAULT_PREFERENCES = Preferences()
_DEFAULT_WINDOW = Window()


def table_name(raw_path: bytes) -> str:
    """The table a path names, percent-decoded; empty for the root. Raises: InvalidPath."""
    if not raw_path.startswith(PREFIX):
        if raw_path == PREFIX[:-1]:
            return ""
        raise InvalidPath  # the prefix itself is percent-encoded
    name = raw_path[len(PREFIX) :]
    if name.isalnum():  # nothing to decode; bytes.isalnum means ASCII
        return name.decode()
    if b"/" in name:
        raise InvalidPath
    try:
        decoded = unquote_to_bytes(name).decode()
    except UnicodeDecodeError as error:
        raise InvalidPath from error
    if "\0" in decoded:
        raise InvalidPath
    return decoded


def schema_name(headers: Headers, method: str, exposed: tuple[str, ...]) -> str:
    """The schema of the request: its profile header, else the first exposed one. Raises: SchemaNotExposed."""
    name = headers.get(b"accept-profile" if method in ("GET", "HEAD", "OPTIONS") else b"content-profile")
    if name is None:
        return exposed[0]
    schema = name.decode("utf-8", "replace")[:128]
    if schema not in exposed:
        raise SchemaNotExposed(schema, exposed)
    return schema


def wants_single_object(headers: Headers) -> bool:
    """Whether the client accepts one object rather than a list. Raises: NotAcceptable."""
    accept = headers.get(b"accept")
    if not accept or accept in _JSON_TYPES:
        return False
    ranked: list[tuple[float, bool]] = []
    for part in accept[:_MAX_HEADER_BYTES].lower().split(b","):
        media_type, quality = part.strip(), 1.0
        found = _QUALITY.search(media_type)
        if found is not None:
            media_type, quality = media_type[: found.start()].strip(), _quality(found.group(1))
        media_type = media_type.removesuffix(b"; charset=utf-8").removesuffix(b";charset=utf-8")
        if quality > 0 and (media_type == SINGULAR or media_type in _JSON_TYPES):
            ranked.append((quality, media_type == SINGULAR))
    if not ranked:
        raise NotAcceptable(accept.decode("latin-1")[:200])
    return max(ranked, key=lambda pair: pair[0])[1]


def _quality(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def check_body_type(headers: Headers) -> None:
    """A body must be JSON; no Content-Type means JSON, but not from a web page. Raises: UnsupportedMediaType.

    A page of any site may send a body without a type and no browser asks us first; a JSON type it announces.
    """
    declared = headers.get(b"content-type", b"" if b"origin" in headers else JSON)
    media_type = declared.partition(b";")[0].strip().lower()
    if media_type not in (JSON, SINGULAR, b"application/vnd.pgrst.array+json"):
        raise UnsupportedMediaType(media_type.decode("latin-1")[:100])


def window(headers: Headers, limit: int | None, offset: int) -> Window:
    """The window of a read: `limit` and `offset` of the URL, narrowed by a Range header in items.

    Raises: RangeNotSatisfiable when the Range header is reversed.
    """
    text = headers.get(b"range")
    found = None if text is None or headers.get(b"range-unit", b"items") != b"items" else _RANGE.fullmatch(text)
    if found is None:
        return Window(offset, limit) if offset or limit is not None else _DEFAULT_WINDOW
    first = int(found.group(1))
    if found.group(2) is None:
        return Window(max(first, offset), limit)
    last = int(found.group(2))
    if first > last:
        raise RangeNotSatisfiable(
            "The lower boundary must be lower than or equal to the upper boundary in the Range header."
        )
    size = last - first + 1
    return Window(max(first, offset), size if limit is None else min(size, limit))


def preferences(headers: Headers) -> Preferences:
    """Read `Prefer`. What is not honoured is ignored, or refused with `handling=strict`. Raises: InvalidPreference."""
    text = headers.get(b"prefer")
    if text is None:
        return _DEFAULT_PREFERENCES
    tokens = [token.strip() for token in text[:_MAX_HEADER_BYTES].decode("latin-1").split(",")]
    strict = "handling=strict" in tokens
    known: dict[str, str] = {}
    strange: list[str] = []
    for token in dict.fromkeys(filter(None, tokens)):
        name, _, value = token.partition("=")
        if _is_honoured(name, value, strict) and name not in known:
            known[name] = value
        else:
            strange.append(token)
    if strict and strange:
        raise InvalidPreference(strange)
    returning: Literal["minimal", "representation", "headers-only"] = "minimal"
    if known.get("return") == "representation":
        returning = "representation"
    elif known.get("return") == "headers-only":
        returning = "headers-only"
    affected = known.get("max-affected")
    return Preferences(
        returning,
        "count" in known,
        None if affected is None else int(affected),
        tuple(f"{name}={value}" for name, value in known.items()),
    )


def _is_honoured(name: str, value: str, strict: bool) -> bool:
    if name == "return":
        return value in ("minimal", "representation", "headers-only")
    if name == "count":
        return value == "exact"
    if name == "handling":
        return value in ("strict", "lenient")
    # PostgREST, too, honours max-affected only under strict handling
    return name == "max-affected" and strict and value.isascii() and value.isdigit() and len(value) <= 18

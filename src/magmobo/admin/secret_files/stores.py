"""The formats that SOPS writes its files in, as trees: JSON, YAML, `.env`, INI. Their values are still encrypted.

Each reader gives the values and, beside them, what SOPS says of the file: its metadata. Boundary: only what SOPS itself
writes is understood. YAML has neither anchors nor tags nor several documents here, so nothing grows while it is read.
Source: https://getsops.io/docs/, checked against files that `sops` wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from magmobo.admin.secret_files.errors import ExtraMissing
from magmobo.admin.secret_files.trees import (
    NULL,
    Budget,
    Leaf,
    Node,
    Table,
    TreeMalformed,
    bool_leaf,
    number_leaf,
    parse_json,
    text_leaf,
)

Format = Literal["json", "yaml", "env", "ini"]

_KEY = "sops"
_PREFIX = "sops_"
DEFAULT_SECTION = "DEFAULT"
"""What SOPS calls the part of an INI file above the first section."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_COMMENT = re.compile(r"ENC\[AES256_GCM,[^\]]*,type:comment\]")
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_MARKS: Mapping[Format, re.Pattern[str]] = {
    "json": re.compile(r"\s*\{"),
    "env": re.compile(r"^sops_(?:mac|version|lastmodified)=", re.MULTILINE),
    "ini": re.compile(r"^\[sops\][ \t\r]*$", re.MULTILINE),
    "yaml": re.compile(r"^\"?sops\"?:[ \t\r]*$", re.MULTILINE),
}


class Store(Struct, frozen=True):
    """A file of SOPS: what its owner keeps in it, and what SOPS itself says of it."""

    format: Format
    values: Table
    metadata: Table


def holds_sealed(text: str) -> bool:
    """Whether SOPS encrypted something in it, be it a whole file of its or not."""
    return "ENC[AES" in text


def format_of(text: str) -> Format | None:
    """Which of the formats a file of SOPS is in, by what stands in it; None when it does not look like one."""
    if _MARKS["json"].match(text):
        return "json" if f'"{_KEY}"' in text else None
    return next((name for name in ("env", "ini", "yaml") if _MARKS[name].search(text)), None)


def read_store(text: str, name: Format) -> Store:
    """Values and metadata. Raises: TreeMalformed, ExtraMissing."""
    values = dict(_READERS[name](text))
    metadata = values.pop(_KEY, None)
    if not isinstance(metadata, Mapping):
        raise TreeMalformed("it holds no metadata of SOPS")
    return Store(name, {key: _without_comments(node) for key, node in values.items()}, metadata)


def _without_comments(node: Node) -> Node:
    """SOPS writes a comment in a list as one of its values, which takes a place but does not count for the MAC."""
    if isinstance(node, Leaf):
        return node
    if isinstance(node, Mapping):
        return {key: _without_comments(child) for key, child in node.items()}
    return [
        _without_comments(child) for child in node if not (isinstance(child, Leaf) and _COMMENT.fullmatch(child.text))
    ]


# ---------------------------------------------------------------- .env and INI


def _env_tree(text: str) -> Table:
    """Keys beginning with `sops_` are the metadata, flattened; a newline in a value is written as `\\n`."""
    values: dict[str, Node] = {}
    metadata: dict[str, Node] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise TreeMalformed(f"line {number}: not KEY=value")
        table, key = (metadata, key[len(_PREFIX) :]) if key.startswith(_PREFIX) else (values, key)
        _put(table, key, value.replace("\\n", "\n"), number)
    return {**values, _KEY: _unflattened(metadata)}


def _ini_tree(text: str) -> Table:
    sections: dict[str, dict[str, Node]] = {}
    section = sections.setdefault(DEFAULT_SECTION, {})
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            section = sections.setdefault(line[1:-1].strip(), {})
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise TreeMalformed(f"line {number}: not key = value")
        _put(section, key.strip(), value.strip(), number)
    tree: dict[str, Node] = {**sections}
    if _KEY in sections:
        tree[_KEY] = _unflattened(
            {
                key: text_leaf(leaf.text.replace("\\n", "\n"))
                for key, leaf in sections[_KEY].items()
                if isinstance(leaf, Leaf)
            }
        )
    return tree


def _put(table: dict[str, Node], key: str, value: str, number: int) -> None:
    if key in table:
        raise TreeMalformed(f"line {number}: a key stands there twice")
    table[key] = text_leaf(value)


def _unflattened(flat: Mapping[str, Node]) -> Table:
    """`age__list_0__map_enc` is the `enc` of the first table in the list `age`; other keys stay."""
    lists: dict[str, dict[str, dict[str, Node]]] = {}
    plain: dict[str, Node] = {}
    for key, value in flat.items():
        family, in_list, rest = key.partition("__list_")
        index, in_table, field = rest.partition("__map_")
        if in_list and in_table:
            lists.setdefault(family, {}).setdefault(index, {})[field] = value
        else:
            plain[family] = value
    return {**plain, **{family: list(tables.values()) for family, tables in lists.items()}}


# ---------------------------------------------------------------- YAML


def _yaml_tree(text: str) -> Table:
    """One document, a mapping. Events instead of objects, so that no tag makes anything and no alias is followed."""
    try:
        import yaml
    except ImportError:
        raise ExtraMissing("a SOPS file in YAML", "sops") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Composer(yaml.parse(text, Loader=loader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise TreeMalformed("not YAML" if mark is None else f"line {mark.line + 1}: not YAML") from None
    except (yaml.YAMLError, RecursionError):
        raise TreeMalformed("not YAML") from None


class _Composer:
    """Makes a tree of the events of a YAML parser."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._budget = Budget()

    def document(self) -> Table:
        event = self._next()
        while type(event).__name__ in ("StreamStartEvent", "DocumentStartEvent"):
            event = self._next()
        tree = self._node(event, 0)
        if not isinstance(tree, dict):
            raise TreeMalformed("it is not a table of keys and values")
        self._next()
        if type(self._next()).__name__ != "StreamEndEvent":
            raise TreeMalformed("it holds several YAML documents; import each as a file of its own")
        return tree

    def _next(self) -> Any:
        try:
            return next(self._events)
        except StopIteration:
            raise TreeMalformed("it is empty") from None

    def _node(self, event: Any, depth: int) -> Node:
        self._budget.take(depth)
        kind = type(event).__name__
        if kind == "AliasEvent" or getattr(event, "anchor", None) is not None:
            raise TreeMalformed(f"line {event.start_mark.line + 1}: an anchor or alias, which SOPS never writes")
        if kind == "ScalarEvent":
            return _yaml_leaf(event)
        if getattr(event, "tag", None) is not None:
            raise TreeMalformed(f"line {event.start_mark.line + 1}: a tag, which SOPS never writes")
        if kind == "SequenceStartEvent":
            return self._list(depth)
        if kind == "MappingStartEvent":
            return self._table(depth)
        raise TreeMalformed("it is empty")

    def _list(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while type(event := self._next()).__name__ != "SequenceEndEvent":
            items.append(self._node(event, depth + 1))
        return items

    def _table(self, depth: int) -> dict[str, Node]:
        table: dict[str, Node] = {}
        while type(event := self._next()).__name__ != "MappingEndEvent":
            key = self._node(event, depth + 1)
            if not isinstance(key, Leaf) or key.text in table:
                raise TreeMalformed(f"line {event.start_mark.line + 1}: a key that is no text, or stands there twice")
            table[key.text] = self._node(self._next(), depth + 1)
        return table


def _yaml_leaf(event: Any) -> Leaf:
    """A scalar, resolved as far as it changes what SOPS digests; a plain one that is nothing else is text."""
    if event.tag is not None:
        raise TreeMalformed(f"line {event.start_mark.line + 1}: a tag, which SOPS never writes")
    text: str = event.value
    if not event.implicit[0]:
        return text_leaf(text)
    if text in _NULLS:
        return NULL
    if text in _BOOLS:
        return bool_leaf(_BOOLS[text])
    return number_leaf(text) if _FLOAT.fullmatch(text) and not _INTEGER.fullmatch(text) else text_leaf(text)


_READERS: Mapping[Format, Callable[[str], Table]] = {
    "json": parse_json,
    "yaml": _yaml_tree,
    "env": _env_tree,
    "ini": _ini_tree,
}

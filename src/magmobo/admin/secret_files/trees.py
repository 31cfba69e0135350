"""Ordered trees of values, as JSON, YAML, TOML and the stores of SOPS hold them.

Boundary: text in, trees out; nothing is decrypted here. Invariant: depth and number of nodes are bounded, a key never
stands twice in one table, and no problem quotes the file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from msgspec import Struct

from magmobo.admin.secret_files.names import Found

MAX_DEPTH = 32
_MAX_NODES = 20_000
_MAX_DOTS = 100
"""Of one line of TOML: its parser takes the square of the parts of a key."""


class Leaf(Struct, frozen=True):
    """A value. `text` is what it says; `digested` the bytes of it that the MAC of SOPS covers, none of a null."""

    text: str
    digested: bytes


Node: TypeAlias = "Mapping[str, Node] | Sequence[Node] | Leaf"
Table: TypeAlias = Mapping[str, Node]

NULL = Leaf("", b"")


class TreeMalformed(Exception):
    """Why a text is no such tree, in words that quote nothing of it; whoever knows the file makes an error of it."""


def text_leaf(text: str) -> Leaf:
    """A value that is text."""
    try:
        return Leaf(text, text.encode())
    except UnicodeEncodeError:
        raise TreeMalformed("a value is not valid Unicode") from None


def bool_leaf(value: bool) -> Leaf:
    """True or false, which SOPS digests as Python would print it."""
    return Leaf("true" if value else "false", b"True" if value else b"False")


def number_leaf(text: str) -> Leaf:
    """A number, as it was written; SOPS digests it as a float without exponent and in the fewest digits."""
    number = float(text)
    if number in (float("inf"), float("-inf")) or number != number:
        raise TreeMalformed("a number is too large")
    digits = f"{Decimal(repr(number)):f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return Leaf(text, digits.encode())


def leaves(tree: Table) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Leaf]]:
    """Every value in the order of the text: the keys that lead to it with places in lists, those without, and it."""
    stack: list[tuple[tuple[str, ...], tuple[str, ...], Node]] = [((), (), tree)]
    while stack:
        keys, tables, node = stack.pop()
        if isinstance(node, Leaf):
            yield keys, tables, node
        elif isinstance(node, Mapping):
            stack += [((*keys, key), (*tables, key), child) for key, child in reversed(list(node.items()))]
        else:
            stack += [((*keys, str(index)), tables, node[index]) for index in reversed(range(len(node)))]


def all_found(tree: Table) -> Iterator[Found]:
    """Every value as what an import takes."""
    for number, (keys, _, leaf) in enumerate(leaves(tree), start=1):
        yield Found(keys, leaf.text, f"entry {number}")


def parse_json(text: str) -> Table:
    """An object of JSON. Raises: TreeMalformed."""
    try:
        tree = json.loads(
            text, object_pairs_hook=_once, parse_int=number_leaf, parse_float=number_leaf, parse_constant=_no_constant
        )
    except json.JSONDecodeError as error:
        raise TreeMalformed(f"line {error.lineno}: not JSON") from None
    except RecursionError:
        raise TreeMalformed("it nests too deeply") from None
    return _as_table(tree)


def parse_toml(text: str) -> Table:
    """A TOML document; a date is no value of a secret. Raises: TreeMalformed."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MAX_DOTS and not line.lstrip().startswith("#"):
            raise TreeMalformed(f"line {number}: too many dots in one line")
    try:
        return _as_table(tomllib.loads(text, parse_float=number_leaf))
    except ValueError:  # also of a number that is too long to be read
        raise TreeMalformed("not TOML") from None
    except RecursionError:
        raise TreeMalformed("it nests too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise TreeMalformed("a key stands twice in one table")
    return table


def _no_constant(_: str) -> Leaf:
    raise TreeMalformed("a number is not a number of JSON")


def _as_table(value: Any) -> Table:
    budget = Budget()
    node = _as_node(value, 0, budget)
    if not isinstance(node, dict):
        raise TreeMalformed("it is not a table of keys and values")
    return node


class Budget:
    """How many nodes a tree may still have."""

    def __init__(self) -> None:
        self._left = _MAX_NODES

    def take(self, depth: int) -> None:
        """Count one node at this depth. Raises: TreeMalformed when the tree is too large."""
        self._left -= 1
        if self._left < 0:
            raise TreeMalformed(f"it holds more than {_MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise TreeMalformed("it nests too deeply")


def _digits(number: int) -> str:
    if number.bit_length() > 1024:
        raise TreeMalformed("a number is too large")
    return str(number)


def _as_node(value: Any, depth: int, budget: Budget) -> Node:
    budget.take(depth)
    match value:
        case Leaf():
            return value
        case str():
            return text_leaf(value)
        case bool():
            return bool_leaf(value)
        case int():
            return number_leaf(_digits(value))
        case None:
            return NULL
        case dict():
            return {key: _as_node(child, depth + 1, budget) for key, child in value.items()}
        case list():
            return [_as_node(child, depth + 1, budget) for child in value]
    raise TreeMalformed("a value is a date or a time; put it in quotes")

"""PostgREST's URL grammar: a query string in, a shape and its values out. No I/O, no catalogue.

Invariant: whatever the bytes are, the result is a `ParsedQuery` or one of the room's own errors; every list, depth and
length is bounded. Values never enter the shape: they only get a slot.
Source: PostgREST's documentation, "Tables and Views" and "Resource Embedding".
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import parse_qsl

from msgspec import Struct

from magmobo.components.maggate.errors import InvalidQuery, NotEmbedded, TooMuch, UrlTooLong
from magmobo.components.maggate.query import Condition, Embed, Field, JsonStep, Logic, Output, Query, Sort, Star
from magmobo.components.maggate.scanner import Scanner

MAX_QUERY_BYTES = 16_384
MAX_PARAMETERS = 100
MAX_CONDITIONS = 100
MAX_IN_VALUES = 1_000
MAX_LOGIC_DEPTH = 8
MAX_SELECT_ITEMS = 200
MAX_EMBEDS = 10
MAX_ORDER_TERMS = 20
MAX_COLUMNS = 1_600  # Postgres' own limit of columns in a table

OPERATORS = ("eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "in", "is")
_IS_WORDS = {"null", "not_null", "true", "false", "unknown"}
_RESERVED = {"select", "order", "limit", "offset", "and", "or", "not.and", "not.or", "columns"}
_NOT_BUILT = {"on_conflict"}
_NUMBER = re.compile(r"[0-9]{1,18}")
_ENCODED = re.compile("[%+\0]")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ParsedQuery(Struct):
    """A shape, the values of its slots, and the window asked for in the URL."""

    query: Query
    values: list[bytes]
    limit: int | None = None
    offset: int = 0


class _Node:
    """What was said so far about one table: the request's own, or an embedded one."""

    def __init__(self) -> None:
        self.where: list[Condition | Logic] = []
        self.order: tuple[Sort, ...] = ()
        self.limit: int | None = None
        self.offset: int | None = None
        self.seen: set[str] = set()


def parse_query(query_string: bytes, *, max_rows: int) -> ParsedQuery:
    """Read a query string as it came over the wire.

    `max_rows` caps the rows of every embedded list; the cap of the whole response is the caller's.
    Raises: InvalidQuery, NotEmbedded, TooMuch, UrlTooLong.
    """
    if not query_string:
        return ParsedQuery(Query(), [])
    return _Parser(_parameters(query_string), max_rows).parse()


def _parameters(query_string: bytes) -> list[tuple[str, str]]:
    if len(query_string) > MAX_QUERY_BYTES:
        raise UrlTooLong(MAX_QUERY_BYTES)
    if query_string.count(b"&") >= MAX_PARAMETERS:
        raise TooMuch("query parameters", MAX_PARAMETERS)
    try:
        text = query_string.decode()
        if not _ENCODED.search(text):  # nothing to decode: splitting is enough, and three times as fast
            return [(key, value) for key, _, value in (pair.partition("=") for pair in text.split("&") if pair)]
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidQuery("the query string", "it is not percent-encoded UTF-8") from error
    if any("\0" in key or "\0" in value for key, value in pairs):
        raise InvalidQuery("the query string", "it holds a zero byte")
    return pairs


class _Parser:
    """Reads the parameters of one request: `select` first, because other parameters speak of its embeds."""

    def __init__(self, pairs: list[tuple[str, str]], max_rows: int) -> None:
        self._pairs, self._max_rows = pairs, max_rows
        self._values: list[bytes] = []
        self._root = _Node()
        self._embeds: dict[str, _Node] = {}
        self._columns: tuple[str, ...] | None = None
        self._conditions = 0

    def parse(self) -> ParsedQuery:
        selects = [value for key, value in self._pairs if key == "select"]
        if len(selects) > 1:
            raise InvalidQuery("select", "it is given twice")
        scanner = Scanner(selects[0] if selects else "", "select", self._values)
        items = self._select(scanner, nested=False) if selects and selects[0] else [Star()]
        if not scanner.at_end():
            scanner.fail("unexpected text")
        for key, value in self._pairs:
            if key != "select":
                self._parameter(key, value)
        select = tuple(self._finish(item) for item in items)
        query = Query(select, tuple(self._root.where), self._root.order, self._columns)
        return ParsedQuery(query, self._values, self._root.limit, self._root.offset or 0)

    # ------------------------------------------------------------ select

    def _select(self, scanner: Scanner, *, nested: bool) -> list[Star | Output | _PendingEmbed]:
        items: list[Star | Output | _PendingEmbed] = []
        while True:
            items.append(self._select_item(scanner, nested=nested))
            if len(items) > MAX_SELECT_ITEMS:
                raise TooMuch("items in select", MAX_SELECT_ITEMS)
            if not scanner.take(","):
                return items

    def _select_item(self, scanner: Scanner, *, nested: bool) -> Star | Output | _PendingEmbed:
        if scanner.take("*"):
            return Star()
        if scanner.sees("..."):
            scanner.fail("spreading an embed with '...' is not supported")
        name, alias = scanner.name(), None
        if scanner.sees(":") and not scanner.sees("::"):
            scanner.take(":")
            alias, name = name, scanner.name()
        if scanner.sees("!") or scanner.sees("("):
            return self._embed(scanner, name, alias, nested=nested)
        return self._output(scanner, name, alias)

    def _output(self, scanner: Scanner, name: str, alias: str | None) -> Output:
        start = scanner.position
        steps = scanner.steps()
        cast = None
        if scanner.take("::"):
            cast = scanner.name().lower()
        if scanner.sees("."):
            scanner.fail("aggregates are not supported")
        if alias is None and steps:
            alias = _last_key(scanner.text[start : scanner.position], steps, self._values, name)
        return Output(Field(name, steps), None if alias is None else scanner.slot(alias), cast)

    def _embed(self, scanner: Scanner, target: str, alias: str | None, *, nested: bool) -> _PendingEmbed:
        if nested:
            scanner.fail("an embed inside an embed is not supported")
        hint, inner = None, False
        while scanner.take("!"):
            word = scanner.name()
            if word in ("inner", "left"):
                inner = word == "inner"
            elif hint is None:
                hint = word
            else:
                scanner.fail("more than one hint")
        scanner.expect("(")
        items = [] if scanner.sees(")") else self._select(scanner, nested=True)
        scanner.expect(")")
        key = alias or target
        if key in self._embeds:
            scanner.fail(f"'{key}' is embedded twice; give one an alias, such as other:{target}(*)")
        if len(self._embeds) >= MAX_EMBEDS:
            raise TooMuch("embeds", MAX_EMBEDS)
        node = self._embeds[key] = _Node()
        alias_slot = None if alias is None else scanner.slot(alias)
        return _PendingEmbed(target, hint, alias_slot, inner, items, node)

    def _finish(self, item: Star | Output | _PendingEmbed) -> Star | Output | Embed:
        """Freeze an embed once every parameter that speaks of it was read."""
        if not isinstance(item, _PendingEmbed):
            return item
        node = item.node
        select = tuple(part for part in item.items if not isinstance(part, _PendingEmbed))
        limit = min(self._max_rows, self._max_rows if node.limit is None else node.limit)
        self._values.append(b"%d" % limit)
        limit_slot, offset_slot = len(self._values) - 1, None
        if node.offset:
            self._values.append(b"%d" % node.offset)
            offset_slot = len(self._values) - 1
        query = Query(select, tuple(node.where), node.order)
        return Embed(item.target, query, item.hint, item.alias_slot, item.inner, limit_slot, offset_slot)

    # ------------------------------------------------------------ the other parameters

    def _parameter(self, key: str, value: str) -> None:
        node, word, field = self._root, key, None
        if key not in _RESERVED:
            if key in _NOT_BUILT:
                raise InvalidQuery(key, "this parameter is not supported")
            node, word, field = self._key(key)
        if field is not None:
            self._count_condition()
            node.where.append(self._condition(field, value, key))
        elif word.endswith(("and", "or")):
            node.where.append(self._logic_parameter(word, value))
        else:
            self._once(node, word, key)
            self._setting(node, word, value)

    def _key(self, key: str) -> tuple[_Node, str, Field | None]:
        """Split `column`, `column->path`, `embed.column` or `embed.order` and its like."""
        if _PLAIN_NAME.fullmatch(key):
            return self._root, "", Field(key)
        scanner = Scanner(key, "a query parameter", self._values)
        field = scanner.field()
        if scanner.at_end():
            return self._root, "", field
        if field.steps:
            scanner.fail("unexpected text")
        scanner.expect(".")
        node = self._embeds.get(field.name)
        if node is None:
            raise NotEmbedded(field.name)
        rest = key[scanner.position :]
        if rest in _RESERVED - {"select", "columns"}:
            return node, rest, None
        inner = scanner.field()
        if not scanner.at_end():
            scanner.fail("unexpected text")
        return node, "", inner

    def _once(self, node: _Node, word: str, key: str) -> None:
        if word in node.seen:
            raise InvalidQuery(key, "it is given twice")
        node.seen.add(word)

    def _setting(self, node: _Node, word: str, value: str) -> None:
        if word == "order":
            node.order = self._order(value)
        elif word == "limit":
            node.limit = _whole_number(word, value)
        elif word == "offset":
            node.offset = _whole_number(word, value)
        else:
            self._columns = self._column_list(value)

    def _column_list(self, value: str) -> tuple[str, ...]:
        scanner = Scanner(value, "columns", self._values)
        names = [scanner.name()]
        while scanner.take(","):
            names.append(scanner.name())
            if len(names) > MAX_COLUMNS:
                raise TooMuch("columns", MAX_COLUMNS)
        if not scanner.at_end():
            scanner.fail("unexpected text")
        return tuple(dict.fromkeys(names))

    def _order(self, value: str) -> tuple[Sort, ...]:
        if not value:
            return ()
        scanner = Scanner(value, "order", self._values)
        terms = [self._order_term(scanner)]
        while scanner.take(","):
            terms.append(self._order_term(scanner))
            if len(terms) > MAX_ORDER_TERMS:
                raise TooMuch("order terms", MAX_ORDER_TERMS)
        if not scanner.at_end():
            scanner.fail("unexpected text")
        return tuple(terms)

    def _order_term(self, scanner: Scanner) -> Sort:
        field, descending = scanner.field(), False
        nulls: Literal["first", "last"] | None = None
        directed = False
        while scanner.take("."):
            word = scanner.word()
            if word in ("asc", "desc") and not directed and nulls is None:
                descending, directed = word == "desc", True
            elif word == "nullsfirst" and nulls is None:
                nulls = "first"
            elif word == "nullslast" and nulls is None:
                nulls = "last"
            else:
                scanner.fail("expected asc, desc, nullsfirst or nullslast")
        return Sort(field, descending, nulls)

    # ------------------------------------------------------------ conditions

    def _count_condition(self) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise TooMuch("filters", MAX_CONDITIONS)

    def _condition(self, field: Field, text: str, key: str) -> Condition:
        """`[not.]operator.value` of a parameter; the value is everything after the dot, commas and quotes included."""
        head, dot, value = text.partition(".")
        negated = head == "not"
        if negated:
            head, dot, value = value.partition(".")
        if not dot or head not in OPERATORS:
            raise InvalidQuery(key, _unknown_operator(text))
        scanner = Scanner(value, key, self._values)
        if head == "in":
            condition = self._in(field, scanner, negated)
            if not scanner.at_end():
                scanner.fail("unexpected text after the list")
            return condition
        return self._compare(field, head, value, negated, scanner)

    def _compare(self, field: Field, operator: str, value: str, negated: bool, scanner: Scanner) -> Condition:
        if operator == "is":
            word = value.lower()
            if word not in _IS_WORDS:
                scanner.fail("expected null, not_null, true, false or unknown")
            return Condition(field, operator, negated, word=word)
        if operator in ("like", "ilike"):
            value = value.replace("*", "%")
        return Condition(field, operator, negated, scanner.slot(value))

    def _in(self, field: Field, scanner: Scanner, negated: bool) -> Condition:
        scanner.expect("(")
        values: list[str] = []
        if not scanner.take(")"):
            while True:
                values.append(scanner.list_value())
                if len(values) > MAX_IN_VALUES:
                    raise TooMuch("values in a list", MAX_IN_VALUES)
                if scanner.take(")"):
                    break
                scanner.expect(",")
        return Condition(field, "in", negated, scanner.slot(_array_literal(values)))

    def _logic_parameter(self, word: str, value: str) -> Logic:
        scanner = Scanner(value, word, self._values)
        negated, operator = word.startswith("not."), word.removeprefix("not.")
        tree = self._logic(scanner, "or" if operator == "or" else "and", negated, 1)
        if not scanner.at_end():
            scanner.fail("unexpected text")
        return tree

    def _logic(self, scanner: Scanner, operator: Literal["and", "or"], negated: bool, depth: int) -> Logic:
        if depth > MAX_LOGIC_DEPTH:
            raise TooMuch("levels of and/or", MAX_LOGIC_DEPTH)
        scanner.expect("(")
        children = [self._logic_child(scanner, depth)]
        while scanner.take(","):
            children.append(self._logic_child(scanner, depth))
        scanner.expect(")")
        return Logic(operator, negated, tuple(children))

    def _logic_child(self, scanner: Scanner, depth: int) -> Condition | Logic:
        for prefix, operator, negated in _LOGIC_STARTS:
            if scanner.sees(prefix):
                scanner.position += len(prefix) - 1
                return self._logic(scanner, operator, negated, depth + 1)
        self._count_condition()
        field = scanner.field()
        scanner.expect(".")
        negated = scanner.take("not.")
        word = scanner.word()
        if word not in OPERATORS or not scanner.take("."):
            scanner.fail(_unknown_operator(word))
        if word == "in":
            return self._in(field, scanner, negated)
        return self._compare(field, word, scanner.list_value(), negated, scanner)


_LOGIC_STARTS: tuple[tuple[str, Literal["and", "or"], bool], ...] = (
    ("and(", "and", False),
    ("or(", "or", False),
    ("not.and(", "and", True),
    ("not.or(", "or", True),
)


class _PendingEmbed:
    """An embed whose filters were not read yet."""

    def __init__(
        self, target: str, hint: str | None, alias_slot: int | None, inner: bool,
        items: list[Star | Output | _PendingEmbed], node: _Node,
    ) -> None:  # fmt: skip
        self.target, self.hint, self.alias_slot, self.inner = target, hint, alias_slot, inner
        self.items, self.node = items, node


def _array_literal(values: list[str]) -> str:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


def _last_key(path: str, steps: tuple[JsonStep, ...], values: list[bytes], column: str) -> str:
    """Key of an unaliased JSON path: its last named step, else the column."""
    named = [values[step.slot].decode() for step in steps if not step.is_index]
    return named[-1] if named else column


def _whole_number(word: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise InvalidQuery(word, f"expected a whole number from 0, not '{value[:40]}'")
    return int(value)


def _unknown_operator(text: str) -> str:
    return f"expected [not.]operator.value, not '{text[:40]}'; operators are {', '.join(OPERATORS)}"

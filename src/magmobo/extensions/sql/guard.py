"""Which statements of extensions run, and in which words: read, checked, printed back; what is printed runs.

Three readers must agree. Our own cuts the text into tokens as Postgres does. sqlglot makes a tree of them, in which
every kind of node, function and table is looked up in allow-lists. What it prints is cut again: each word outside of
quotes must be on the list, nothing may have come or gone, and it must give the same tree again. The guest's role in
Postgres is what decides in the end; this keeps out what a role cannot forbid: settings, waiting, listening, locks.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from magmobo.contracts.planes import TableName
from magmobo.extensions.sql import lexer, words
from magmobo.extensions.sql.errors import StatementRefused, StatementTooLarge
from magmobo.extensions.sql.lexer import Kind, Token

if TYPE_CHECKING:
    from magmobo.extensions.sql.tree import Settled

Allow = Literal["query", "migration"]
MAX_QUERY_CHARACTERS, MAX_MIGRATION_CHARACTERS = 32_768, 262_144
CACHE_ENTRIES, CACHE_CHARACTERS = 512, 2_097_152
_WORDS: dict[str, frozenset[str]] = {
    "query": words.QUERY_KEYWORDS | words.FIELDS | words.TYPES | words.FUNCTIONS,
    "migration": words.QUERY_KEYWORDS | words.FIELDS | words.TYPES | words.FUNCTIONS | words.MIGRATION_KEYWORDS,
}
_FIRST = {
    "query": frozenset({"select", "with", "values", "insert", "update", "delete", "("}),
    "migration": frozenset(
        {"select", "with", "values", "insert", "update", "delete", "(", "create", "drop", "alter", "comment"}
    ),
}


class Guarded(Struct, frozen=True):
    """What runs. `reads` and `writes` are tables with their schema, those of its own too; of a migration all
    statements together. `returns_rows`: it answers with rows.
    """

    sql: str
    reads: tuple[TableName, ...]
    writes: tuple[TableName, ...]
    returns_rows: bool


def guard(sql: str, *, schema: str, allow: Allow) -> Guarded:
    """The statement as it may run: one for `query`, any number for `migration`.

    Takes about half a second for a text that is as long as it may be: call it in a thread, or ask `GuardCache`.
    Args:
        schema: the extension's own, to which names without a schema belong; empty: it has none.
    Raises: StatementRefused, StatementTooLarge.
    """
    limit = MAX_QUERY_CHARACTERS if allow == "query" else MAX_MIGRATION_CHARACTERS
    if len(sql) > limit:
        raise StatementTooLarge(f"it has {len(sql)} characters, the limit is {limit}")
    found = lexer.statements(lexer.tokens(sql))
    if not found or (len(found) != 1 and allow == "query"):
        raise StatementRefused("it is not exactly one statement")
    return _joined([_guard_one(tokens, schema, allow) for tokens in found])


def _guard_one(tokens: Sequence[Token], schema: str, allow: Allow) -> Guarded:
    from magmobo.extensions.sql import syntax, tree  # 100 ms, when the first statement comes

    if tokens[0].text not in _FIRST[allow] or tokens[0].kind not in (Kind.WORD, Kind.MARK):
        raise StatementRefused(f"statements that begin with {tokens[0].text[:63].upper()}")
    settled = tree.Settled(syntax.parse(lexer.written(tokens)), schema, allow)
    text = syntax.printed(settled.tree)
    printed = lexer.tokens(text, strict=True)
    _check_words(printed, allow)
    _check_same(tokens, printed, settled)
    again = tree.Settled(syntax.parse(lexer.written(printed)), schema, allow)
    if again.tree != settled.tree or syntax.printed(again.tree) != text or again.added:
        raise StatementRefused("it reads differently when it is printed back; write it in a simpler way")
    return Guarded(text, _names(settled.reads), _names(settled.writes), settled.returns_rows)


def _check_words(printed: Sequence[Token], allow: Allow) -> None:
    allowed = _WORDS[allow]
    for token in printed:
        if token.kind is Kind.WORD and token.text not in allowed:
            raise StatementRefused(f"the word {token.text[:63].upper()}")
        if token == (Kind.MARK, ";"):
            raise StatementRefused("it is not exactly one statement")


def _check_same(written: Sequence[Token], printed: Sequence[Token], settled: Settled) -> None:
    """Nothing was lost and nothing came in: the parser knows many dialects and must not have taken one for another."""
    before, after = _content(written), _content(printed)
    for schema, times in settled.added.items():
        after[(Kind.NAME, schema)] -= times
    for _, text in (+(before - after)) | (+(after - before)):
        raise StatementRefused(f"it cannot be printed back as it is, near {text[:63]!r}; write it in a simpler way")


def _content(tokens: Sequence[Token]) -> Counter[tuple[Kind, str]]:
    """What counts of a statement, however it is written down: values, names, words and operators, how often each."""
    content: Counter[tuple[Kind, str]] = Counter()
    for kind, text in tokens:
        match kind:
            case Kind.WORD | Kind.NAME:
                if text not in words.NOISE:  # a word of ours may be a name of theirs
                    content[(Kind.NAME, text)] += 1
            case Kind.NUMBER:
                content[(kind, f"0{text}" if text.startswith(".") else text)] += 1
            case Kind.OPERATOR:
                for part in words.SAME.get(text, (text,)):
                    content[(Kind.NAME if part == "not" else kind, part)] += 1
            case Kind.STRING | Kind.PARAMETER:
                content[(kind, text)] += 1
            case _:
                pass  # commas and brackets follow from the rest
    return content


def _joined(parts: Sequence[Guarded]) -> Guarded:
    if len(parts) == 1:
        return parts[0]
    return Guarded(
        ";\n".join(part.sql for part in parts),
        tuple(sorted({table for part in parts for table in part.reads})),
        tuple(sorted({table for part in parts for table in part.writes})),
        False,
    )


def _names(tables: set[tuple[str, str]]) -> tuple[TableName, ...]:
    return tuple(TableName(*table) for table in sorted(tables))


class GuardCache:
    """What was decided of texts that came before, the latest ones; a new text is read in a thread, one at a time."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Guarded | StatementRefused] = OrderedDict()
        self._characters = 0
        self._reading = asyncio.Lock()

    async def query(self, sql: str, schema: str) -> Guarded:
        """As `guard(sql, schema=schema, allow="query")`."""
        key = (schema, sql)
        if key not in self._known:
            async with self._reading:
                if key not in self._known:
                    self._keep(key, await asyncio.to_thread(_decide, sql, schema))
        self._known.move_to_end(key)
        decided = self._known[key]
        if isinstance(decided, StatementRefused):
            raise type(decided)(*decided.args)  # each caller gets one with a traceback of its own
        return decided

    def _keep(self, key: tuple[str, str], decided: Guarded | StatementRefused) -> None:
        self._known[key] = decided
        self._characters += _weight(key)
        while len(self._known) > 1 and (len(self._known) > CACHE_ENTRIES or self._characters > CACHE_CHARACTERS):
            oldest, _ = self._known.popitem(last=False)
            self._characters -= _weight(oldest)


def _decide(sql: str, schema: str) -> Guarded | StatementRefused:
    try:
        return guard(sql, schema=schema, allow="query")
    except StatementRefused as refused:
        return type(refused)(*refused.args)  # without the frames, which hold the tree


def _weight(key: tuple[str, str]) -> int:
    return len(key[0]) + len(key[1])

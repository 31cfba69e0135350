"""The parser and the printer, cut down to what they must do here: sqlglot's, for Postgres.

Functions stay as they were written (sqlglot would turn many into its own idea of them), unknown statements are an error
instead of an opaque command, and parsing takes a bounded number of steps, because it goes back and tries again.
Boundary: imported by `guard.py` when the first statement comes; importing sqlglot takes 100 ms.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ErrorLevel, SqlglotError, UnsupportedError
from sqlglot.generators.postgres import PostgresGenerator
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import TokenType

from magmobo.extensions.sql.errors import StatementRefused, StatementTooLarge
from magmobo.extensions.sql.words import FIELDS

STEPS_PER_TOKEN, STEPS_AT_LEAST = 5, 500  # what people write takes one or two for each
_DIALECT = Postgres()
_DIALECT.INDEX_OFFSET = 0  # an index stays the number that was written


class Infix(exp.Expression, exp.Binary):
    """An operator that is printed as it was written."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True, "expression": True, "sign": True}


class Power(exp.Expression, exp.Binary):
    """`a ^ b`, which sqlglot would print as a function."""


def _infix(operator: str) -> Any:
    return lambda self, this, other: Infix(this=this, expression=other, sign=operator)


class _Parser(PostgresParser):
    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        name: PostgresParser.FUNCTION_PARSERS[name]
        for name in ("CAST", "EXTRACT", "OVERLAY", "POSITION", "SUBSTRING", "TRIM")
    }
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        name: PostgresParser.NO_PAREN_FUNCTION_PARSERS[name] for name in ("ANY", "CASE", "VARIADIC")
    }
    EXPONENT: ClassVar[dict[TokenType, Any]] = {TokenType.CARET: Power}
    JSON_OPERATORS: ClassVar[dict[TokenType, Any]] = {
        TokenType.ARROW: _infix("->"),
        TokenType.DARROW: _infix("->>"),
        TokenType.HASH_ARROW: _infix("#>"),
        TokenType.DHASH_ARROW: _infix("#>>"),
        TokenType.PLACEHOLDER: _infix("?"),
    }
    FUNCTION_PARSERS["SUBSTRING"] = lambda self: self._parse_substring_as_written()
    steps_left = 0

    def _advance(self, times: int = 1) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise StatementTooLarge("it is nested too deeply")
        super()._advance(times)

    def _parse_interval(self, require_interval: bool = True, parse_function_unit: bool = True) -> Any:
        """`interval '…'` means what Postgres takes it for; sqlglot would read and rewrite the text."""
        if self._curr.token_type is not TokenType.INTERVAL or self._next.token_type is not TokenType.STRING:
            return None
        self._advance()
        text = self._parse_primary()
        if self._curr and self._curr.text in FIELDS:
            raise StatementRefused(f"interval '…' {self._curr.text}: write the unit inside of the quotes")
        return self.expression(exp.Cast(this=text, to=exp.DataType.build("interval", dialect=_DIALECT)))

    def _parse_substring_as_written(self) -> exp.Expr:
        """With commas it is a function like any other."""
        first = self._index
        node = self._parse_substring()
        words = {token.token_type for token in self._tokens[first : self._index]}
        if words & {TokenType.FROM, TokenType.FOR}:
            return node
        return self.expression(exp.Anonymous(this="substring", expressions=list(node.iter_expressions())))

    def _parse_as_command(self, start: Any) -> NoReturn:
        raise StatementRefused(f"{start.text.upper()} in this form")

    def _warn_unsupported(self) -> NoReturn:
        raise StatementRefused(f"{self._prev.text.upper()}")


class _Printer(PostgresGenerator):
    MULTI_ARG_DISTINCT = True
    TRANSFORMS: ClassVar[dict[Any, Any]] = {
        **PostgresGenerator.TRANSFORMS,
        Infix: lambda self, node: f"{self.sql(node, 'this')} {node.args['sign']} {self.sql(node, 'expression')}",
        exp.CurrentTime: lambda self, node: "CURRENT_TIME",
        Power: lambda self, node: self.binary(node, "^"),
    }
    del TRANSFORMS[exp.ColumnDef]  # a serial column stays one

    def altercolumn_sql(self, expression: exp.AlterColumn) -> str:
        if expression.args.get("allow_null") is False:
            return f"ALTER COLUMN {self.sql(expression, 'this')} SET NOT NULL"
        return super().altercolumn_sql(expression)


def parse(text: str) -> exp.Expression:
    """The tree of one statement. Raises: StatementRefused, StatementTooLarge."""
    try:
        found = _DIALECT.tokenize(text)
        parser = _Parser(dialect=_DIALECT, error_level=ErrorLevel.IMMEDIATE)
        parser.steps_left = STEPS_AT_LEAST + STEPS_PER_TOKEN * len(found)
        trees = parser.parse(found, text)
    except RecursionError:
        raise StatementTooLarge("it is nested too deeply") from None
    except (SqlglotError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise StatementRefused(f"it cannot be read ({_first_line(error)})") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Expression):
        raise StatementRefused("it is not exactly one statement")
    return trees[0]


def printed(tree: exp.Expression) -> str:
    """The tree as text, every name in quotes. Raises: StatementRefused."""
    printer = _Printer(
        dialect=_DIALECT, identify=True, comments=False, normalize_functions="lower", unsupported_level=ErrorLevel.RAISE
    )
    try:
        return printer.generate(tree)
    except RecursionError:
        raise StatementTooLarge("it is nested too deeply") from None
    except (UnsupportedError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise StatementRefused(f"it cannot be printed back ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]

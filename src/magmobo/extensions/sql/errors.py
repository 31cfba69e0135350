"""Errors of extensions' SQL, codes MAG-EXT-200 to 239. The extension is told code and text."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class StatementRefused(MagError):
    """A statement of an extension that is not one of those that extensions may run."""

    code = "MAG-EXT-200"
    http_status = 422
    remedy = "docs/extension-sql.md lists the statements and functions there are; values go into parameters."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"this statement is not run for extensions: {self.reason}"


class StatementTooLarge(StatementRefused):
    """A statement that is too long or nested too deeply to be read."""

    code = "MAG-EXT-201"
    remedy = "Write several smaller statements, and pass values as parameters ($1)."


class TableNotGranted(MagError):
    """A statement names a table that the extension was not granted, or writes to one that it may only read."""

    code = "MAG-EXT-202"
    http_status = 403
    remedy = "`mag extension:show ID` lists the tables; the manifest asks for more of them, an operator approves."

    def __init__(self, table: str, *, writes: bool) -> None:
        super().__init__(table, writes)
        self.table, self.writes = table, writes

    def __str__(self) -> str:
        return f"{self.table} was not granted for {'writing' if self.writes else 'reading'}"


class StatementFailed(MagError):
    """Postgres refused a statement of an extension; `sqlstate` is its code."""

    code = "MAG-EXT-203"
    http_status = 422
    remedy = "Read what Postgres says; the five characters in brackets are its code (SQLSTATE)."

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(sqlstate, message)
        self.sqlstate, self.message = sqlstate, message

    def __str__(self) -> str:
        return f"Postgres says: {self.message} [{self.sqlstate}]"


class ResultTooLarge(MagError):
    """The answer to a statement of an extension has too many rows or bytes; it was cancelled."""

    code = "MAG-EXT-204"
    http_status = 422
    remedy = "Ask for less at once: a LIMIT, fewer columns, or the aggregate that you need."

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what, self.limit = what, limit

    def __str__(self) -> str:
        return f"the answer has more than {self.limit} {self.what}"


class ParameterRefused(MagError):
    """A parameter that is no value for Postgres, or too many of them."""

    code = "MAG-EXT-205"
    http_status = 422
    remedy = "Parameters are null, true, false, numbers, text, bytes, times, and lists or maps of these."

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason

    def __str__(self) -> str:
        return f"parameter ${self.place}: {self.reason}"

"""Reading a connection string, naming it without its password, and turning a refused login into one of our errors.

libpq gives no SQLSTATE for a failed connection attempt, only text, so the text is what we sort by; whatever is not
recognised stays a plain `ConnectFailure` with that text, the password blotted out.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from magmobo.components.magds import errors

APPLICATION_NAME = "magmobo"
OLDEST_SERVER = 150_000

_REASONS: tuple[tuple[type[errors.ConnectFailure], str], ...] = (
    (
        errors.LoginRefused,
        r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* (does not exist|is not permitted)"
        r"|not permitted to log in|permission denied for database|SASL|SCRAM|password.*required",
    ),
    (errors.DatabaseMissing, r"database .* does not exist"),
    (
        errors.ServerBusy,
        r"too many (clients|connections)|connection slots|starting up|shutting down|recovery mode"
        r"|not yet accepting|not accepting connections",
    ),
    (errors.TlsFailure, r"\bSSL\b|\bTLS\b|certificate|sslmode"),
    (
        errors.ServerUnreachable,
        r"resolve host|translate host|refused|No such file|timeout|timed out|No route|unreachable|reset by peer"
        r"|closed the connection|Is the server running",
    ),
)


def parse_dsn(dsn: str) -> dict[str, Any]:
    """The parameters of a URL (`postgres://`, `postgresql://`) or of a libpq keyword string.

    Raises: DsnMalformed. Its text never quotes the string: what cannot be read may be the password.
    """
    if "\0" in dsn or not dsn.strip():
        raise errors.DsnMalformed("it is empty or holds a NUL byte")
    if "://" in dsn.partition("=")[0] and not dsn.startswith(("postgres://", "postgresql://")):
        raise errors.DsnMalformed("a URL must begin with postgres:// or postgresql://")
    try:
        parameters = conninfo_to_dict(dsn)
    except psycopg.Error:
        raise errors.DsnMalformed(
            "it is neither a URL nor key=value words; in a URL, special characters of the password are written %hh"
        ) from None
    for port in str(parameters.get("port", "5432")).split(","):
        if port and not (port.isdecimal() and 0 < int(port) < 65_536):
            raise errors.DsnMalformed("its port is not a number from 1 to 65535")
    return parameters


def complete_dsn(dsn: str, *, connect_timeout_s: float) -> str:
    """The same connection string with the defaults that every connection of ours has, where it does not set them."""
    parameters = parse_dsn(dsn)
    parameters.setdefault("connect_timeout", str(max(2, round(connect_timeout_s))))
    parameters.setdefault("fallback_application_name", APPLICATION_NAME)
    parameters["client_encoding"] = "UTF8"  # rows are passed through as bytes and must be JSON
    return make_conninfo("", **parameters)


def describe_dsn(dsn: str) -> str:
    """`user@host:port/database`, for people; never the password."""
    parameters = parse_dsn(dsn)
    host = parameters.get("host") or parameters.get("hostaddr") or "localhost"
    if parameters.get("service"):
        return f"service {parameters['service']}"
    user = f"{parameters['user']}@" if parameters.get("user") else ""
    return f"{user}{host}:{parameters.get('port', '5432')}/{parameters.get('dbname', parameters.get('user', ''))}"


def connect_failure(error: psycopg.Error, dsn: str) -> errors.ConnectFailure:
    """The error that says why this connection attempt failed."""
    reason = _blot(str(error), dsn)
    for kind, pattern in _REASONS:
        if re.search(pattern, reason, re.IGNORECASE):
            return kind(describe_dsn(dsn), reason)
    return errors.ConnectFailure(describe_dsn(dsn), reason)


def check_version(server_version: int, dsn: str) -> None:
    """Raises: ServerTooOld for a server older than Postgres 15. `server_version` is libpq's number (150018)."""
    if server_version < OLDEST_SERVER:
        raise errors.ServerTooOld(describe_dsn(dsn), f"it is Postgres {server_version // 10_000}, too old")


async def connect(dsn: str) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """One autocommit connection to a server that is new enough.

    Raises: ConnectFailure and its subclasses, DsnMalformed.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    except psycopg.Error as error:
        raise connect_failure(error, dsn) from None  # the cause's text may quote the password
    try:
        check_version(connection.info.server_version, dsn)
    except errors.ServerTooOld:
        await connection.close()
        raise
    return connection


def _blot(text: str, dsn: str) -> str:
    """`text` on one line without the password of `dsn`."""
    for secret in (str(parse_dsn(dsn).get(key) or "") for key in ("password", "sslpassword")):
        if secret:
            text = text.replace(secret, "***")
    return re.sub(r"\s+", " ", text).strip()

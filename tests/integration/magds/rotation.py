"""Roles that need their password, on the server that all tests share."""

from __future__ import annotations

import psycopg

from magmobo.testing.postgres import PostgresServer


def require_password(server: PostgresServer, *roles: str) -> None:
    """From now on these roles, and no other, are asked for their password."""
    path = server.socket_dir / "data" / "pg_hba.conf"
    lines = "".join(f"local all {role} scram-sha-256\n" for role in roles)
    path.write_text(lines + path.read_text())
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("select pg_reload_conf()")
    for role in roles:
        _until_refused(server.dsn(user=role))


def _until_refused(dsn: str) -> None:
    """The server reads its rules when it comes to it."""
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return

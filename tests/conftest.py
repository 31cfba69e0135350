"""Fixtures every test may use: one real Postgres a session, one fresh database a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from magmobo.testing.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server with logical decoding, shared by the session."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def dsn(postgres: PostgresServer) -> Iterator[str]:
    """DSN of a database that this test has for itself."""
    with postgres.database() as dsn:
        yield dsn

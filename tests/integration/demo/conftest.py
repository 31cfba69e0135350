"""The flights demo is loaded once a session; each test that needs it gets a copy of that database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.integration.demo.support import make_demo

from magmobo.testing.postgres import PostgresServer


@pytest.fixture(scope="session")
def flights_template(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a database that holds the flights demo, for copying."""
    with postgres.database() as dsn:
        asyncio.run(make_demo(dsn, Path(tmp_path_factory.mktemp("flights"))).boot())
        yield str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])


@pytest.fixture
def flights_dsn(postgres: PostgresServer, flights_template: str) -> Iterator[str]:
    """A database with the flights demo that this test has for itself."""
    name = f"{flights_template}_copy"
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{flights_template}" strategy file_copy')
        try:
            yield postgres.dsn(name)
        finally:
            admin.execute(f'drop database "{name}" with (force)')

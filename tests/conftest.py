"""Fixtures every test may use: one real Postgres a session, one fresh database a test.

Properties are tried without a clock: how long an example takes says how busy the machine is.
"""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from magmobo.testing.node import disposable_system_dir
from magmobo.testing.postgres import PostgresServer, running_postgres

settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
OPEN_FILES = 20_000


def pytest_configure() -> None:
    """Be the same whatever shell the tests were started from. Tests about one of these set it themselves."""
    os.umask(0o022)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < OPEN_FILES:  # as nodes do; some tests hold both ends of a thousand connections
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if len(tempfile.gettempdir()) > 40:  # paths of Unix sockets have 107 bytes, and those of tests are long
        os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"
    # What a shell starts in the background ignores Ctrl-C, and so would every program that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _system_dir() -> Iterator[None]:
    """Clusters of nodes that the tests run as root: in a folder of this session, not among the machine's own."""
    with disposable_system_dir():
        yield


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

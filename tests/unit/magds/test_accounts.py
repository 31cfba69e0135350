"""Who makes a cluster must have an account, and is told so in words of ours."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from magmobo.components.magds.binaries import Binaries
from magmobo.components.magds.cluster import _initdb
from magmobo.components.magds.errors import NoAccount, ServerStartFailed


@pytest.fixture
def failing(tmp_path: Path) -> Binaries:
    """A Postgres whose initdb does what the real one does for a user without an account."""
    program = tmp_path / "initdb"
    program.write_text("#!/bin/sh\necho 'initdb: could not look up effective user ID: user does not exist'\nexit 1\n")
    program.chmod(0o755)
    return Binaries(tmp_path, "18.1")


def test_a_user_without_an_account_is_named(failing: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(NoAccount, match=f"user id {os.geteuid()}, which has no account") as caught:
        _initdb(tmp_path / "cluster", failing, tmp_path / "password", None)
    assert "/etc/passwd" in caught.value.next_step()


def test_one_who_has_an_account_reads_what_postgres_said(failing: Binaries, tmp_path: Path) -> None:
    with pytest.raises(ServerStartFailed, match="could not look up"):
        _initdb(tmp_path / "cluster", failing, tmp_path / "password", None)

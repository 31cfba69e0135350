"""Real `age` and `sops`, and a server that speaks HashiCorp Vault's API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.vault.support import Tools

from magmobo.testing.openbao import VaultServer, running_vault


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return Tools(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="session")
def vault() -> Iterator[VaultServer]:
    """A server shared by the session; a test that seals it opens it again."""
    with running_vault() as server:
        yield server

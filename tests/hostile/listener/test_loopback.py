"""Addresses that mean this machine, however they are written, are guarded against DNS rebinding."""

from __future__ import annotations

import pytest

from magmobo.components.listener.errors import HostNotAllowed
from magmobo.components.listener.hosts import HostGuard


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.3", "::1", "::1%lo", "::ffff:127.0.0.1", "::ffff:7f00:1"])
def test_every_spelling_of_loopback_is_guarded(address: str) -> None:
    with pytest.raises(HostNotAllowed):
        HostGuard(address, []).check([(b"host", b"evil.example")], "1.1")

"""The node as its operators' door and the console see it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256

from magmobo.contracts.planes import NodeStatus
from magmobo.contracts.secret import Secret


class NodeOperators:
    """Implements the Protocol `Operators`. `status` is asked each time; no token hash means nobody is an admin."""

    def __init__(self, status: Callable[[], NodeStatus], token_sha256: Secret | None) -> None:
        self._status, self._token_sha256 = status, token_sha256

    def status(self) -> NodeStatus:
        return self._status()

    def admin_token_matches(self, candidate: str) -> bool:
        if not self._token_sha256:
            return False
        hashed = sha256(candidate.encode(errors="surrogatepass")).hexdigest()
        return hmac.compare_digest(hashed, self._token_sha256.reveal())

"""The node as its doors and the console see it."""

from __future__ import annotations

import hmac
from hashlib import sha256

from magmobo.contracts.capabilities import Actor
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.planes import NodeStatus
from magmobo.contracts.secret import Secret
from magmobo.kernel.kernel import Kernel


class NodeOperators:
    """Implements the Protocol `Operators` for the kernel it is given with `serve`, which is built with it.

    No token hash means nobody is an admin; another one counts from the next question on.
    """

    def __init__(self, token_sha256: Secret | None) -> None:
        self._token_sha256, self._token_number = token_sha256, 1
        self._kernel: Kernel | None = None

    def take_token(self, token_sha256: Secret | None) -> None:
        """Another admin token counts from now on."""
        if token_sha256 != self._token_sha256:
            self._token_sha256 = token_sha256
            self._token_number += 1

    def serve(self, kernel: Kernel) -> None:
        """Speak for this kernel from now on."""
        self._kernel = kernel

    @property
    def kernel(self) -> Kernel:
        """Raises: Unavailable before there is one."""
        if self._kernel is None:
            raise Unavailable("the kernel")
        return self._kernel

    def status(self) -> NodeStatus:
        return self.kernel.status()

    def admin_token_matches(self, candidate: str) -> bool:
        if not self._token_sha256:
            return False
        hashed = sha256(candidate.encode(errors="surrogatepass")).hexdigest()
        return hmac.compare_digest(hashed, self._token_sha256.reveal())

    @property
    def admin_token_number(self) -> int:
        return self._token_number

    async def run(
        self,
        command: str,
        params: bytes = b"{}",
        *,
        actor: Actor,
        timeout_s: float = 30.0,
        dry_run: bool = False,
        idempotency_key: str = "",
    ) -> bytes:
        return await self.kernel.services.commands.run(
            command, params, actor=actor, timeout_s=timeout_s, dry_run=dry_run, idempotency_key=idempotency_key
        )

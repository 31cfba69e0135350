"""What a secret may be called and how long it may be, for every driver and for imports."""

from __future__ import annotations

import re

from magmobo.kernel.vault.driver import MAX_SECRET_BYTES
from magmobo.kernel.vault.errors import SecretRefused

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def check_secret(name: str, text: str) -> None:
    """Raises: SecretRefused."""
    if not NAME.fullmatch(name):
        raise SecretRefused("that is no name for a secret", name[:100])
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise SecretRefused("it is not text", name) from None
    if not 0 < size_bytes <= MAX_SECRET_BYTES:
        raise SecretRefused(f"it has {size_bytes:,} bytes, a secret has 1 to {MAX_SECRET_BYTES:,}", name)

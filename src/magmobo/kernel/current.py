"""The configuration that counts now: one place for the whole node, replaced as a whole by a reload.

Whoever needs a setting of the node reads it here at that moment, and keeps none.
"""

from __future__ import annotations

from typing import Any

from magmobo.kernel.config.core import KernelConfig
from magmobo.kernel.config.loader import Config


class Current:
    """Of one node. Only a reload, and a component that joins, replace `config`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def section(self, name: str) -> Any:
        """The frozen Struct of a section. Raises: KeyError for a section that was not declared."""
        return self.config.section(name)

    @property
    def kernel(self) -> KernelConfig:
        """Section [kernel]."""
        section: KernelConfig = self.config.section("kernel")
        return section

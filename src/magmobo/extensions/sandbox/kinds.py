"""The layers of the sandbox by name; `layers.py` applies them.

Apart from it because the node, which names them, never loads what the zygote applies them with.
"""

from __future__ import annotations

from enum import StrEnum


class Layer(StrEnum):
    """One layer; in this order they are applied. `PIDS` is by the fork itself."""

    PIDS = "pids"
    NAMESPACES = "namespaces"
    LIMITS = "limits"
    CGROUP = "cgroup"
    ROOT = "root"
    USER = "user"
    PRIVILEGES = "privileges"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"

"""Tries what it is told to try against the operating system; see attacks.py beside it."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import attacks

import magx
from magx import Extension

ext = Extension()


def use_descriptors(_target: attacks.Target) -> list[str]:
    """Anything open but the null device, the one socket, and what the worker's own loop waits with."""
    found = []
    for number in range(256):
        with suppress(OSError):
            status = os.fstat(number)
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                found.append(f"file {number}")
            elif stat.S_ISCHR(status.st_mode) and status.st_rdev != os.makedev(1, 3):
                found.append(f"device {number}")
            elif stat.S_ISSOCK(status.st_mode):
                with socket.socket(fileno=os.dup(number)) as ours:
                    if ours.family != socket.AF_UNIX or ours.getpeername() or ours.getsockname():
                        found.append(f"socket {number}")
    if not found:
        raise attacks.Stopped("nothing that leads outside")
    return found


INHERITED = {**attacks.INHERITED, "use_descriptors": attacks.Attack(10, use_descriptors)}
attacks.ATTACKS = {**attacks.ATTACKS, **INHERITED}


@ext.command("where")
def where() -> dict[str, Any]:
    """What an attack needs to know of the worker it runs in."""
    return {
        "data_dir": str(ext.data_dir or ""),
        "code_dir": str(Path(__file__).parent),
        "library": str(Path(magx.__file__).parent.parent),
    }


@ext.command("attempt")
def attempt(arguments: dict[str, Any]) -> dict[str, str]:
    """Try one attack of those that are known."""
    if arguments["name"] not in attacks.ATTACKS:
        raise LookupError(arguments["name"])
    kind, how = attacks.attempt(arguments["name"], arguments["target"])
    return {"kind": kind, "how": how}


@ext.command("spin")
def spin() -> None:
    """Never end, and let nothing else run."""
    while True:
        pass

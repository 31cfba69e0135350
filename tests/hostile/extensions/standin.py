"""A runtime for workers of the hostile tests: runs attacks from its code folder, one an asked line, and answers."""

from __future__ import annotations

import importlib
import json
import socket
import sys


def run(fd: int) -> None:
    """The main of a worker."""
    with socket.socket(fileno=fd) as node, node.makefile("rw") as lines:
        for line in lines:
            asked = json.loads(line)
            sys.path[:0] = [asked["target"]["code_dir"]]
            attacks = importlib.import_module("attacks")
            lines.write(json.dumps(attacks.attempt(asked["attack"], asked["target"])) + "\n")
            lines.flush()

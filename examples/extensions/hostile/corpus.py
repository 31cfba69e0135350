"""The hostile corpus as a table: small extensions, each written to do one kind of harm, by the number of its case.

`python corpus.py FOLDER` writes every one of them out as an author's folder, ready for `mag extension:pack`. The code
of an extension is one file of `code/`, the same for all system cases; its manifest is made here. Boundary: the standard
library alone; nothing is run. What stops each of them is in README.md, and is tested on a real node.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ATTACKS = HERE.parents[2] / "tests" / "hostile" / "extensions" / "attacks.py"
"""What is tried against the operating system, shared with the tests of the sandbox alone."""
MIB = 1_048_576


@dataclass(frozen=True)
class Hostile:
    """One extension. `cases` are numbers of the hostile list; `code` names a file of `code/` without its ending;
    `asks` are its capabilities, `more` is what else its manifest says.
    """

    id: str
    cases: Sequence[int]
    does: str
    code: str
    asks: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` says."""
        return {
            "manifest_version": 1,
            "id": self.id,
            "name": self.id,
            "version": "1.0.0",
            "description": self.does,
            "capabilities": list(self.asks),
            "commands": [{"name": name} for name in COMMANDS[self.code]],
            **self.more,
        }


def asks(name: str, **scope: Any) -> dict[str, Any]:
    """One capability, with the reason that it gives."""
    return {"name": name, "reason": "It would do harm with it.", **scope}


COMMANDS: Mapping[str, Sequence[str]] = {
    "system": ("where", "attempt", "spin"),
    "api": ("ask", "flood", "unpack"),
    "frames": ("send",),
    "hooks": ("start", "said"),
    "slow": ("publish", "count"),
    "busy": ("spin", "flood"),
    "quiet": ("hello",),
}
"""The commands that each file of `code/` has."""
_SYSTEM: Mapping[int, str] = {
    1: "reads files of the machine and of the node",
    2: "leaves its folder by `..` and by /proc/self/root",
    3: "links files of others into its folder",
    4: "reads, changes and removes what another extension keeps",
    5: "changes its own code and the libraries of all",
    6: "changes mode and times of the node's files, and looks at them",
    7: "lists processes, reads the node's memory and environment",
    8: "traces the node, reads and writes its memory, takes a descriptor of it",
    9: "signals the node and others, lowers its limits",
    10: "looks for descriptors, environment and memory that it may have inherited",
    11: "connects to the database's socket",
    12: "connects to TCP ports of the machine and to abstract sockets",
    13: "asks the metadata service of a cloud",
    14: "sends datagrams, listens, speaks to the kernel's other networks",
    16: "forks",
    17: "starts threads until nothing is left",
    18: "takes more memory than it may",
    19: "spins, with the best priority it can get",
    20: "fills the disk and the table of descriptors",
    21: "runs other programs, from files and from memory",
    22: "makes namespaces, mounts, becomes somebody else, calls as another architecture",
    23: "uses the kernel's own machinery: rings, BPF, page faults, counters, keys",
    24: "raises its limits",
}
_FOLDER = (asks("filesystem.write"),)
_LIMITS = {"limits": {"memory_bytes": 64 * MIB, "data_bytes": 2 * MIB}}
_LOOP = (asks("realtime.subscribe_events"), asks("realtime.broadcast", channels=["loop", "circle"]))
_HOOK = {"hooks": [{"point": "realtime.before_broadcast", "timeout_ms": 50}]}

CORPUS: Sequence[Hostile] = (
    *(Hostile(f"system-{case:02}", (case,), does, "system", _FOLDER, _LIMITS) for case, does in _SYSTEM.items()),
    Hostile("outward", (13, 15), "has the node ask places that it may not reach itself", "api",
            (asks("network.outbound", hosts=["localhost", "localtest.example", "*.internal.example"]),)),
    Hostile("statements", (31, 32, 33, 34, 35, 36), "is a hostile client of the database", "api",
            (asks("database.read", tables=["public.orders"]), asks("database.write", tables=["public.orders"]),
             asks("database.schema"))),
    Hostile("neighbour", (31,), "keeps a table that others would like to read", "api", (asks("database.schema"),)),
    Hostile("frames", (37,), "writes what is no frame on its socket", "frames"),
    Hostile("flood", (38,), "asks as often and as much as it can", "api", (asks("api.emit_events"),)),
    Hostile("slow", (38,), "takes events and never comes to an end", "slow", (asks("api.emit_events"),),
            {"events": [{"name": "own", "topic": "extension.published", "where": {"data.extension_id": "slow"}}]}),
    Hostile("loop", (39,), "sends a message whenever a message is sent", "hooks", _LOOP, _HOOK),
    Hostile("circle", (39,), "answers the other's message with one of its own", "hooks", _LOOP, _HOOK),
    Hostile("calls", (40,), "asks for what it may not, or may no more, and as somebody else", "api",
            (asks("api.emit_events"), asks("realtime.broadcast", channels=["news"]))),
    Hostile("busy", (19, 38), "keeps a processor and the node busy for a time", "busy", (asks("api.emit_events"),)),
    Hostile("quiet", (25, 26, 27, 28, 29, 30), "is well-behaved: packages that lie are made of it", "quiet"),
)  # fmt: skip


def find(extension_id: str) -> Hostile:
    """The extension of this id. Raises: KeyError."""
    return {one.id: one for one in CORPUS}[extension_id]


def write(hostile: Hostile, folder: Path, **changed: Any) -> Path:
    """Write one out as an author's folder; `changed` replaces fields of its manifest. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(hostile.manifest() | changed, indent=2), encoding="utf-8")
    shutil.copyfile(HERE / "code" / f"{hostile.code}.py", folder / "extension.py")
    if hostile.code == "system":
        shutil.copyfile(ATTACKS, folder / "attacks.py")
        (folder / "prey.py").write_text('"""A file of its own that it tries to change."""\n', encoding="utf-8")
    return folder


def main(arguments: Sequence[str]) -> int:
    """Write all of them out, below the folder that is named."""
    if len(arguments) != 1:
        print("usage: python corpus.py FOLDER", file=sys.stderr)
        return 2
    for hostile in CORPUS:
        print(write(hostile, Path(arguments[0]) / hostile.id))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

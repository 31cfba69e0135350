"""A secret that is typed, at a real terminal: it is asked for twice and never echoed, whatever the terminal does."""

from __future__ import annotations

import os
import pty
import select
import sys
from pathlib import Path

from tests.integration.node.harness import answer, environ

SECRET = "correct-horse-battery-staple"


class Typist:
    """`mag` on a terminal of its own."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.seen = b""
        arguments = [sys.executable, "-m", "magmobo.cli.main", *words]
        variables = {**environ("Steady"), "TERM": "xterm"}
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(cwd)
            os.execve(sys.executable, arguments, variables)

    def answers(self, question: str, text: str) -> None:
        """Wait for the question, which ends with a blank once nothing is echoed, and type a line."""
        asked = self.seen.count(question.encode())
        while self.seen.count(question.encode()) == asked or not self.seen.endswith(b": "):
            assert self._reads(), self.seen
        os.write(self._terminal, f"{text}\n".encode())
        self.seen += b"|"

    def ends(self) -> int:
        """The exit code; everything that was shown has been seen."""
        while self._reads():
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _reads(self) -> bool:
        assert select.select([self._terminal], [], [], 60.0)[0], self.seen
        try:
            part = os.read(self._terminal, 4096)
        except OSError:  # as Linux says that the other side is closed
            return False
        self.seen += part
        return bool(part)


def test_a_typed_secret_is_stored_and_not_shown(tmp_path: Path) -> None:
    typist = Typist("vault:set", "db", cwd=tmp_path)
    typist.answers("db (is not shown)", SECRET)
    typist.answers("once more", SECRET)
    assert typist.ends() == 0, typist.seen
    assert b"stored db, version 1" in typist.seen
    assert SECRET.encode() not in typist.seen
    (use,) = answer("vault:list", cwd=tmp_path)["secrets"]
    assert use["info"]["name"] == "db"


def test_two_that_differ_are_asked_for_again_and_nothing_is_stored_until_they_agree(tmp_path: Path) -> None:
    typist = Typist("vault:set", "db", cwd=tmp_path)
    typist.answers("db (is not shown)", SECRET)
    typist.answers("once more", SECRET[:-1])
    typist.answers("db (is not shown)", "\x03")
    assert typist.ends() == 130, typist.seen
    assert SECRET[:-1].encode() not in typist.seen
    assert answer("vault:list", cwd=tmp_path)["secrets"] == []

"""The real programs `age` and `sops`, as tests use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


class Tools:
    """The programs, and an age identity made by `age-keygen`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity = folder / "identity.txt"
        self.run("age-keygen", "-o", str(self.identity))
        self.recipient = self.run("age-keygen", "-y", str(self.identity)).decode().strip()

    def run(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """What it prints. Raises: CalledProcessError."""
        environment = {**os.environ, "SOPS_AGE_KEY_FILE": str(self.identity), "SOPS_DISABLE_VERSION_CHECK": "1"}
        path = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert path is not None, f"{program} is missing: make tools"
        done = subprocess.run([path, *arguments], input=stdin, capture_output=True, env=environment, check=True)
        return done.stdout

    def sops(self, name: str, text: str, *options: str, mac_only_encrypted: bool = False) -> Path:
        """A file that `sops` encrypted; the name says the format."""
        path = self.folder / name
        path.write_text(text)
        rules = self.folder / "rules.yaml"
        rules.write_text(
            f"creation_rules:\n  - age: {self.recipient}\n    mac_only_encrypted: {str(mac_only_encrypted).lower()}\n"
        )
        self.run("sops", "--config", str(rules), "encrypt", "--in-place", *options, str(path))
        return path

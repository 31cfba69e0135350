"""What `mag kernel:status` may import, and which words it leaves to the full command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from magmobo.cli import fast
from magmobo.cli.fast import _read

SLOW = {
    "click", "asyncio", "msgspec", "tomllib", "structlog", "psycopg", "uvicorn", "cryptography", "sqlite3",
    "dataclasses", "inspect", "subprocess", "tempfile", "shutil", "importlib.metadata", "logging",
    "magmobo.contracts.planes", "magmobo.kernel", "magmobo.node", "magmobo.components",
}  # fmt: skip


@pytest.mark.parametrize("words", [["status"], ["kernel:status", "--json"], ["component", "list"]])
def test_a_status_loads_nothing_slow(words: list[str]) -> None:
    """Asked of a node that says it is well, by a socket that is not there: everything but the socket is used."""
    script = (
        "import sys\n"
        "from magmobo.admin.client import AdminClient\n"
        "part = {'name': 'a', 'state': 'running', 'health': 'healthy', 'restarts': 0, 'since': 'now', 'detail': ''}\n"
        "node = {'instance_id': 'i', 'state': 'ready', 'environment': 'e', 'version': '1', 'uptime_s': 1.0,\n"
        "        'components': [part], 'urls': {}, 'examples': ['`mag x`'], 'notices': []}\n"
        "AdminClient.status = lambda self: node\n"
        "from magmobo.cli.main import main\n"
        f"assert main({words!r}) == 0\n"
        f"print(sorted({SLOW!r} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    expected = ["shutil"] if words == ["status"] else []  # it shows a command as the user can type it here
    assert done.stderr.strip() == str(expected)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["status"], ("status", None, False)),
        (["kernel:status", "--json"], ("kernel:status", None, True)),
        (["kernel", "status", "--data-dir", "x"], ("kernel:status", "x", False)),
        (["component", "list", "--json", "--data-dir", "a", "--data-dir", "b"], ("component:list", "b", True)),
    ],
)
def test_the_plainest_forms_are_understood(words: list[str], asked: tuple[object, ...]) -> None:
    assert _read(words) == asked


@pytest.mark.parametrize(
    "words",
    [
        [], ["kernel"], ["kernel", "blame"], ["kernel:blame"], ["--help"], ["--role", "viewer", "status"],
        ["status", "-h"], ["status", "--watch"], ["status", "--timeout", "5"], ["status", "x"],
        ["status", "--data-dir"], ["down"], ["status", "--data-dir=x"], ["status", "--data-dir", "--json"],
        ["kernel:status", "status"], ["status", "--", "x"], ["status", "--js"], ["component", "show", "list"], ["list"],
    ],
)  # fmt: skip
def test_all_else_is_left_to_who_knows_every_option(words: list[str]) -> None:
    assert _read(words) is None
    assert words == [] or not set(words[:1]) & set(fast.FORMS) or len(words) > 1

"""The self-test on real folders, ports and this operating system."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from magmobo.admin.data_folder import DataFolder
from magmobo.admin.offline import examine_folder
from magmobo.kernel import selftest


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "mag_data"
    folder.mkdir(mode=0o700)
    return folder


def run(data_dir: Path, **more: Any) -> dict[str, selftest.Finding]:
    return {one.name: one for one in selftest.run(data_dir, time_s=time.time(), **more)}


def test_a_good_folder_is_good_and_untouched(data_dir: Path) -> None:
    found = run(data_dir)
    assert all(one.ok for name, one in found.items() if name not in ("disk", "open files")), found
    assert list(data_dir.iterdir()) == []


def test_without_files_that_have_no_name_the_probe_is_gone_too(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    assert run(data_dir)["data folder"].ok
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_no_folder_is_fatal(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "there"
    if kind == "a file":
        place.touch()
    found = run(place)
    assert list(found) == ["data folder"]
    assert (found["data folder"].ok, found["data folder"].fatal) == (False, True)


def test_a_full_disk_is_fatal_and_says_so(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda _descriptor, _data: 4096)  # as much as there was room for
    found = run(data_dir)["data folder"]
    assert (found.ok, found.fatal) == (False, True)
    assert "No space left" in found.detail
    assert "Make room" in found.remedy


@pytest.mark.parametrize(
    ("free_bytes", "inodes", "ok", "fatal"),
    [(1 << 40, 10**6, True, False), (100 << 20, 10**6, False, False), (1 << 20, 10**6, False, True),
     (1 << 40, 5, False, False)],
)  # fmt: skip
def test_room(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, inodes: int, ok: bool, fatal: bool
) -> None:
    state = SimpleNamespace(f_bavail=free_bytes, f_frsize=1, f_files=10**7, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda _path: state)
    found = run(data_dir)["disk"]
    assert (found.ok, found.fatal) == (ok, fatal)
    assert ok or str(data_dir) in found.remedy


def test_a_folder_others_may_look_into_is_advice(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    found = run(data_dir)["permissions"]
    assert (found.ok, found.fatal, found.remedy) == (False, False, f"chmod 700 {data_dir}")


def test_a_folder_of_somebody_else_is_advice(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: data_dir.stat().st_uid + 1)
    found = run(data_dir)["permissions"]
    assert not found.ok
    assert "chown -R" in found.remedy


def test_a_port_that_is_taken_is_advice(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = run(data_dir, ports=[("127.0.0.1", port), ("127.0.0.1", 0)])
        assert (found[f"port {port}"].ok, found[f"port {port}"].fatal) == (False, False)
        assert f":{port}" in found[f"port {port}"].remedy
    assert found["port 0"].ok
    assert selftest.check_port("127.0.0.1", port).ok


def test_looking_at_this_operating_system_changes_nothing() -> None:
    def traits() -> list[str]:
        wanted = ("NoNewPrivs", "Seccomp", "Uid", "CapEff")
        lines = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(wanted)]
        descriptors = sorted(entry.name for entry in Path("/proc/self/fd").iterdir())
        return [*lines, *descriptors, str(Path("/proc/self/ns/user").readlink())]

    before = traits()
    found = selftest.examine_sandbox()
    kept = selftest.clock_is_synchronised()
    assert traits() == before
    assert [one.name for one in found] == ["user namespaces", "Landlock", "seccomp", "cgroup delegation"]
    assert all(one.ok != bool(one.remedy) for one in found)
    assert kept in (True, False, None)


async def test_doctor_looks_at_the_machine_too(data_dir: Path) -> None:
    (data_dir / "node.lock").touch()
    data_dir.chmod(0o750)
    checks = {one.name: one for one in await examine_folder(DataFolder(data_dir))}
    assert {"permissions", "clock", "open files", "sandbox for extensions"} <= checks.keys()
    assert checks["permissions"].remedy == f"chmod 700 {data_dir}"
    assert "NTP" in checks["clock"].detail
    assert checks["sandbox for extensions"].ok, "a node without extensions needs none of it"
    assert "user namespaces" in checks["sandbox for extensions"].detail

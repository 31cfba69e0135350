"""Packages that would take another's place, get more than was approved, or make the node work for them (28 to 30)."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.extensions.package.making import PAIR, asked, folder, manifest, package, text

from magmobo.extensions.package.build import pack, sign
from magmobo.extensions.package.errors import ManifestRefused, SignerUnknown, UpgradeRefused
from magmobo.extensions.package.format import read_package
from magmobo.extensions.package.keys import generate
from magmobo.extensions.package.settings import check_settings
from magmobo.extensions.package.upgrades import capability_diff, check_upgrade
from magmobo.extensions.package.validate import read_manifest

# ---------------------------------------------------------------- 28


def test_an_older_version_does_not_come_back_as_an_upgrade(tmp_path: Path) -> None:
    old, new = package(tmp_path / "old", version="1.9.0"), package(tmp_path / "new", version="1.10.0")
    check_upgrade(old, new)
    with pytest.raises(UpgradeRefused, match="older"):
        check_upgrade(new, old)


def test_the_same_version_with_other_content_is_no_upgrade(tmp_path: Path) -> None:
    with pytest.raises(UpgradeRefused, match="other content"):
        check_upgrade(package(tmp_path / "a"), package(tmp_path / "b", {"more.py": "evil = 1"}))


def test_another_extension_does_not_take_its_place(tmp_path: Path) -> None:
    with pytest.raises(UpgradeRefused, match="another extension"):
        check_upgrade(package(tmp_path / "a"), package(tmp_path / "b", id="demo2", version="9.0.0"))


def test_another_signer_does_not_take_over_though_both_are_trusted(tmp_path: Path) -> None:
    other = generate()
    both = {PAIR.key_id: PAIR.public, other.key_id: other.public}
    stolen = read_package(sign(pack(folder(tmp_path / "b", version="2.0.0")), other), both)
    with pytest.raises(UpgradeRefused, match="signed with key"):
        check_upgrade(package(tmp_path / "a"), stolen)


def test_a_key_under_the_name_of_another_signs_nothing(tmp_path: Path) -> None:
    data = sign(pack(folder(tmp_path)), generate())
    with pytest.raises(SignerUnknown):
        read_package(data, {PAIR.key_id: PAIR.public})


# ---------------------------------------------------------------- 29


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [asked("system.metrics")]),
        ([], [asked("network.outbound", hosts=["x.com"])]),
        ([asked("database.read", tables=["a.b"])], [asked("database.write", tables=["a.b"])]),
        ([asked("database.read", tables=["a.b(c)"])], [asked("database.read", tables=["a.b"])]),
        (
            [asked("database.read", tables=["a.b"])],
            [asked("database.read", tables=["a.b"]), asked("database.write", tables=["a.b"])],
        ),
        ([asked("network.outbound", hosts=["x.com"])], [asked("network.outbound", hosts=["x.com:8080"])]),
        ([asked("network.outbound", hosts=["*.x.com"])], [asked("network.outbound", hosts=["*.x.com", "evilx.com"])]),
        ([asked("realtime.broadcast", channels=["a-*"])], [asked("realtime.broadcast", channels=["a*"])]),
        ([asked("system.metrics", rate_per_minute=1)], [asked("system.metrics")]),
        ([asked("auth.audit_access", topics=["auth.*"])], [asked("auth.audit_access", topics=["auth.**"])]),
        ([asked("database.schema")], [asked("database.admin")]),
        ([asked("system.metrics")], [asked("system.metrics"), asked("ui.register_panel", optional=True, fallback="x")]),
    ],
)  # fmt: skip
def test_more_than_was_approved_is_seen(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    found = capability_diff(manifest(capabilities=before), manifest(capabilities=after))
    assert found.more
    assert found.risk is not None


# ---------------------------------------------------------------- 30


EXPLODES = "(a+)+$"


def test_a_filter_that_would_run_without_end_ends(tmp_path: Path) -> None:
    """In a process of its own, which Python's own `re` would keep for minutes."""
    code = (
        "import json, sys\n"
        "from magmobo.extensions.package.validate import read_manifest\n"
        "from magmobo.extensions.languages.filters import compile_filter\n"
        "found = read_manifest(sys.stdin.buffer.read())\n"
        "test = compile_filter(found.events[0].where)\n"
        "test({'data': {'x': 'a' * 5000 + '!'}})\n"
    )
    where = {"data.x": {"$regex": EXPLODES}}
    data = text(events=[{"name": "a", "topic": "system.ready", "where": where}])
    subprocess.run([sys.executable, "-c", code], input=data, timeout=120, check=True)


@pytest.mark.parametrize(
    "where",
    [
        {"data.x": {"$regex": "(?=a)b"}},
        {"data.x": {"$regex": r"(a)\1"}},
        {"data.x": {"$regex": "((a{1,100}){1,100}){1,100}"}},
        {"data.x": {"$regex": "a" * 5_000}},
        {"data.x": {"$where": "1"}},
        {"__class__.x": {"$eq": 1}},
        {"$or": [{"data.x": 1}] * 5_000},
    ],
)
def test_a_filter_that_is_no_filter_is_refused_on_reading(where: dict[str, Any]) -> None:
    with pytest.raises(ManifestRefused, match=r"events\[0\]\.where"):
        read_manifest(text(events=[{"name": "a", "topic": "system.ready", "where": where}]))


def test_a_filter_that_is_nested_without_end_is_refused() -> None:
    where: dict[str, Any] = {"data.x": 1}
    for _ in range(25):
        where = {"$not": where}
    with pytest.raises(ManifestRefused, match=r"where|deeper"):
        read_manifest(text(events=[{"name": "a", "topic": "system.ready", "where": where}]))


@pytest.mark.parametrize(
    "cron", ["* * * * * *", "0 0 31 2 *", "@reboot", "*/0 * * * *", "x", "1-99999999 * * * *", "0 0 * * *\n"]
)
def test_a_schedule_that_never_comes_or_is_none_is_refused(cron: str) -> None:
    with pytest.raises(ManifestRefused):
        read_manifest(text(jobs=[{"name": "a", "cron": cron}], capabilities=[asked("system.cron_schedule")]))


class _Seen(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - one server at a time

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Quietly."""


@pytest.fixture
def bait() -> Iterator[str]:
    """A server inside that no package may make the node ask."""
    _Seen.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Seen) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/schema.json"
        server.shutdown()
        thread.join(timeout=30)


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema", "$id", "$recursiveRef", "$vocabulary"])
def test_a_schema_makes_the_node_fetch_nothing(keyword: str, bait: str) -> None:
    inner = {"type": "string", keyword: bait}
    for schema in ({"type": "object", keyword: bait}, {"type": "object", "properties": {"x": inner}}, {keyword: bait}):
        with pytest.raises(ManifestRefused):
            read_manifest(text(settings=schema))
    assert _Seen.asked == []


def test_not_even_a_schema_that_was_never_checked_makes_it_fetch(bait: str) -> None:
    """The second wall: the validator has no way to retrieve anything."""
    with pytest.raises(Exception, match="nothing is fetched"):
        check_settings({"type": "object", "properties": {"x": {"$ref": bait}}}, {"x": 1})
    assert _Seen.asked == []


@pytest.mark.parametrize(
    "keyword", ["pattern", "patternProperties", "format", "propertyNames", "if", "not", "contentSchema", "allOf"]
)
def test_a_schema_has_no_pattern_and_no_logic(keyword: str) -> None:
    value: Any = EXPLODES if keyword in ("pattern", "format") else {EXPLODES: {"type": "string"}}
    with pytest.raises(ManifestRefused, match="no keyword"):
        read_manifest(text(settings={"type": "object", "properties": {"x": {"type": "string", keyword: value}}}))


def test_a_manifest_of_the_largest_size_is_read_in_bounded_work() -> None:
    """Names that nearly match, in every place where a suggestion is looked for."""
    crowded = {f"nam{'e' * (one % 50)}{one}": 1 for one in range(8_000)}
    data = text(**crowded)
    assert len(data) < 262_144 * 2
    with pytest.raises(ManifestRefused) as caught:
        read_manifest(data[:262_000])
    assert len(str(caught.value)) < 10_000
    for said in (dict(list(crowded.items())[:5_000]), {"hooks": [{}] * 60_000}, {"events": [{"nme": 1}] * 15_000}):
        with pytest.raises(ManifestRefused) as caught:
            read_manifest(text(**said))
        assert len(caught.value.problems) <= 100
        assert len(str(caught.value)) < 10_000

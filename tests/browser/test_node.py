"""The console of a whole node: rows written through REST and by another client appear in it, once, in order."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from hashlib import sha256
from pathlib import Path

import psycopg
from playwright.async_api import expect
from tests.browser.support import sign_in, visiting

from magmobo.admin.client import AdminClient
from magmobo.admin.data_folder import DataFolder
from magmobo.testing.node import running_node

ROLE = "console_test_writer"
CONFIG = f"""
[maggate]
anonymous_role = "{ROLE}"

[[magws.tables]]
table = "public.notes"
"""


def prepare(dsn: str) -> None:
    """A table of the user's, and a role that may write it through REST."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table public.notes (id int primary key, body text)")
        connection.execute(
            f"do $$ begin create role {ROLE}; exception when duplicate_object or unique_violation then null; end $$"
        )
        connection.execute(f"grant usage on schema public to {ROLE}; grant insert, select on public.notes to {ROLE}")


def post(url: str, row: dict[str, object]) -> int:
    request = urllib.request.Request(url, json.dumps(row).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return int(response.status)


def write(dsn: str, row: tuple[int, str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("insert into public.notes values (%s, %s)", row)


async def test_rows_from_rest_and_from_another_client_appear_live(dsn: str, tmp_path: Path) -> None:
    await asyncio.to_thread(prepare, dsn)
    (tmp_path / "mag.toml").write_text(CONFIG)
    async with running_node(tmp_path / "data", dsn) as node, visiting(node.base_url) as visit:
        page = visit.page
        await sign_in(page, node.admin_token)
        for name in ("listener", "magds", "maggate", "magws", "console"):
            await expect(page.get_by_role("row", name=name)).to_contain_text("running")
        await expect(page.get_by_text("Following notes.")).to_be_visible()
        await page.wait_for_function("document.getElementById('connection').textContent === 'connected'")
        await visit.subscribed("private-db.public.notes")
        assert await asyncio.to_thread(post, f"{node.base_url}/rest/v1/notes", {"id": 1, "body": "by REST"}) == 201
        await asyncio.to_thread(write, dsn, (2, "by another client"))
        rows = page.locator("#ticker tr")
        await expect(rows).to_have_count(2)
        await expect(rows.nth(1)).to_contain_text("body by REST")
        await expect(rows.nth(0)).to_contain_text("body by another client")
        await expect(page.locator("#received")).to_have_text("2")
        assert visit.foreign_requests == []
        assert visit.problems == []


async def test_settings_follow_the_files_and_go_back_and_a_former_token_ends_its_sessions(
    dsn: str, tmp_path: Path
) -> None:
    file = tmp_path / "mag.toml"
    file.write_text("[maggate]\nmax_rows = 500\n")
    async with running_node(tmp_path / "data", dsn) as node, visiting(node.base_url) as visit:
        page = visit.page
        await sign_in(page, node.admin_token)
        await page.get_by_role("link", name="Settings").click()
        max_rows = page.locator("#settings").get_by_role("row", name="maggate.max_rows")
        await expect(max_rows).to_contain_text("500mag.toml line 2")
        assert dsn not in await page.content()
        file.write_text("[maggate]\n# more\nmax_rows = 700\n")
        await expect(max_rows).to_contain_text("700mag.toml line 3", timeout=20_000)
        file.write_text("[maggate]\nmax_rows = 'many'\n")
        await expect(page.locator("#refused")).to_contain_text("maggate.max_rows", timeout=20_000)

        await page.get_by_role("button", name="Go back to version 1").click()
        await expect(page.get_by_role("dialog")).to_contain_text("700 → 500")
        await page.get_by_role("dialog").get_by_role("button", name="Go back").click()
        await expect(page.get_by_role("dialog")).to_contain_text("Version 3 counts now.")
        await page.get_by_role("dialog").get_by_role("button", name="Close").click()
        await expect(max_rows).to_contain_text("500mag.toml line 2")
        await expect(page.locator("#versions tr").first).to_contain_text("consolerollback")
        await expect(page.get_by_text("The settings were taken back")).to_be_visible()
        log = await asyncio.to_thread(AdminClient(DataFolder(node.data_dir)).ask, "audit:tail", {"limit": 100})
        rollbacks = [record for record in log["records"] if record["action"] == "config.rollback"]
        assert rollbacks
        assert {record["actor"] for record in rollbacks} == {"console"}

        file.write_text(f'[admin]\ntoken_sha256 = "{sha256(b"another-token").hexdigest()}"\n[maggate]\nmax_rows = 9\n')
        await expect(page.get_by_text("Your session has ended.")).to_be_visible(timeout=20_000)
        await sign_in(page, node.admin_token)
        await expect(page.get_by_text("that is not the admin token")).to_be_visible()
        await sign_in(page, "another-token")
        await expect(max_rows).to_contain_text("9")
        assert visit.foreign_requests == []
        assert visit.problems == []


async def test_the_flights_demo_is_alive_in_the_console(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path / "data", "--demo", "flights", "--speed", "5000") as node,
        visiting(node.base_url) as visit,
    ):
        await sign_in(visit.page, node.admin_token)
        await expect(visit.page.get_by_text("Following departures, flights.")).to_be_visible()
        await expect(visit.page.locator("#ticker tr").nth(20)).to_be_visible(timeout=15_000)
        await expect(visit.page.locator("#ticker tr").first).to_contain_text("departures")
        await expect(visit.page.locator("#gaps")).to_have_text("0")
        await visit.page.screenshot(path=tmp_path / "flights.png", full_page=True)
        assert visit.foreign_requests == []

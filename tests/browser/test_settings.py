"""The settings in a real browser: what they show, and the one thing that can be done there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, Response, expect
from tests.browser.support import Visit, sign_in, visiting
from tests.integration.console.support import TOKEN, Browser, running_console

from magmobo.contracts.configuration import ConfigChange, ConfigEntry
from magmobo.contracts.settings import Effect

MARKUP = "<img src=x onerror=document.title='owned'>"
TURNED = "a\u202egnp.exe\u0007\n"  # the browser would draw it as something else

ENTRIES = [
    ConfigEntry("magds.dsn", "***", "environment MAG_MAGDS__DSN", "environment", Effect.LIVE, True, "vault:db@3"),
    ConfigEntry("kernel.environment", "test", "default", "default", Effect.NODE, waiting=True),
    ConfigEntry("logging.level", "debug", "patch by uid:0", "patch", Effect.LIVE, expires_at="2026-01-02T03:04:05Z"),
    ConfigEntry("cache.redis_url", None, "default", "default", Effect.NODE, True),
    ConfigEntry("magws.tables", [{"table": f"public.t{n}"} for n in range(9)], "mag.toml line 9", "file", Effect.LIVE),
    ConfigEntry("evil.text", MARKUP, f"{MARKUP}.toml line 1", "file", Effect.COMPONENT),
    ConfigEntry("evil.turned", TURNED, "default", "default", Effect.LIVE),
]


@asynccontextmanager
async def looking_at_settings(
    *entries: ConfigEntry, width: int = 1280, dark: bool = False
) -> AsyncIterator[tuple[Visit, Browser]]:
    async with running_console(realtime=False) as console:
        console.settings.entries += entries
        async with visiting(f"http://127.0.0.1:{console.port}", width=width, dark=dark) as visit:
            await sign_in(visit.page, TOKEN)
            await visit.page.get_by_role("link", name="Settings").click()
            await expect(visit.page.locator("#settings tr")).to_have_count(1 + len(entries))
            yield visit, console
            assert visit.foreign_requests == []
            assert visit.problems == []


def setting(page: Page, key: str) -> Locator:
    return page.locator("#settings").get_by_role("row", name=key)


async def test_each_setting_is_shown_with_who_set_it_and_what_a_change_takes() -> None:
    async with looking_at_settings(*ENTRIES) as (visit, _console):
        page = visit.page
        for key, words in {
            "magds.pool_size": ("16", "mag.toml line 3", "live"),
            "magds.dsn": ("***", "secret", "from vault:db@3", "environment MAG_MAGDS__DSN"),
            "kernel.environment": ('"test"', "another value waits for a restart of the node", "node restart"),
            "logging.level": ('"debug"', "until", "patch by uid:0"),
            "cache.redis_url": ("unset", "secret"),
            "evil.text": (json.dumps(MARKUP), f"{MARKUP}.toml line 1", "component restart"),
            "evil.turned": ('"a\\u{202e}gnp.exe\\u0007\\n"',),
        }.items():
            for text in words:
                await expect(setting(page, key)).to_contain_text(text)
        await expect(page.locator("#waiting")).to_have_text(
            "Changed, and waiting for a restart of the node: kernel.environment"
        )
        await expect(page.locator("#refused")).to_be_hidden()
        await expect(page.locator("#taken-back")).to_be_hidden()
        tables = setting(page, "magws.tables").locator("details")
        await tables.locator("summary").click()
        await expect(tables.locator("pre")).to_contain_text('"table": "public.t8"')
        assert await page.title() == "MagMoBo console"


async def test_the_search_looks_into_keys_values_and_origins() -> None:
    async with looking_at_settings(*ENTRIES) as (visit, console):
        page = visit.page
        shown = page.locator("#settings tr:visible th")
        for words, keys in {
            "magds": ["magds.pool_size", "magds.dsn"],
            "MAGDS pool": ["magds.pool_size"],
            "vault:": ["magds.dsn"],
            "waiting": ["kernel.environment"],
            "patch": ["logging.level"],
            "public.t7": ["magws.tables"],
            "mag.toml": ["magds.pool_size", "magws.tables"],
            "component restart": ["evil.text"],
            "nowhere": [],
        }.items():
            await page.get_by_label("Search settings").fill(words)
            await expect(shown).to_have_text(keys)
            await expect(page.locator("#found")).to_have_text(f"{len(keys)} of 8")
        await expect(page.get_by_text("No setting fits.")).to_be_visible()
        await page.get_by_label("Search settings").fill("e")
        await page.get_by_label("Without defaults").check()
        await expect(shown).to_have_count(5)
        console.settings.entries.pop()  # what is drawn anew is searched anew
        await expect(page.locator("#found")).to_have_text("5 of 7")


async def test_it_follows_the_node() -> None:
    async with looking_at_settings() as (visit, console):
        page, settings = visit.page, console.settings
        await expect(page.locator("#versions tr")).to_have_count(2)
        settings.values[3] = 99
        settings.refused = f"mag.toml: {MARKUP}\nand another line"
        settings.held = True
        await expect(setting(page, "magds.pool_size")).to_contain_text("99")
        await expect(page.locator("#versions tr")).to_have_count(3)
        await expect(page.locator("#versions tr").first).to_contain_text("counts now")
        await expect(page.locator("#refused")).to_have_text(
            f"The last reload did not take effect: mag.toml: {MARKUP}\nand another line"
        )
        await expect(page.get_by_text("The settings were taken back")).to_be_visible()
        settings.refused, settings.held = "", False
        await expect(page.locator("#refused")).to_be_hidden()
        await expect(page.get_by_text("The settings were taken back")).to_be_hidden()


async def test_what_has_not_changed_is_not_drawn_again() -> None:
    async with looking_at_settings() as (visit, _console):
        await visit.page.evaluate("document.querySelector('#settings tr').dataset.same = 'yes'")
        for _ in range(2):
            async with visit.page.expect_response(lambda answer: "api/settings?unless=" in answer.url) as answered:
                pass
            assert (await answered.value).status == 204
        assert await visit.page.evaluate("document.querySelector('#settings tr').dataset.same") == "yes"


async def test_going_back_shows_the_plan_and_waits_for_a_yes() -> None:
    async with looking_at_settings() as (visit, console):
        page, settings = visit.page, console.settings
        dialog = page.get_by_role("dialog", name="Go back to version 1")
        settings.gate.clear()
        await page.get_by_role("button", name="Go back to version 1").click()
        await expect(dialog.get_by_role("button", name="Go back")).to_be_disabled()
        settings.gate.set()
        for words in ("16 → 8", "live · mag.toml line 3", "Told while they serve: magds", "in this order: demo",
                      "Count after a restart of the node only: kernel.environment"):  # fmt: skip
            await expect(dialog).to_contain_text(words)
        assert settings.asked == [(1, True)]
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        assert (settings.version, settings.asked) == (2, [(1, True)])

        await page.get_by_role("button", name="Go back to version 1").click()
        await dialog.get_by_role("button", name="Go back").click()
        await expect(dialog).to_contain_text("Version 3 counts now.")
        await expect(dialog).not_to_contain_text("Something had changed")
        await expect(dialog.get_by_role("button", name="Go back")).to_be_hidden()
        assert settings.asked == [(1, True), (1, True), (1, False)]
        await dialog.get_by_role("button", name="Close").click()
        await expect(setting(page, "magds.pool_size")).to_contain_text("8")
        await expect(page.locator("#versions tr").first).to_contain_text("counts now")


async def test_a_deed_that_is_not_what_was_shown_is_told() -> None:
    async with looking_at_settings() as (visit, console):
        page = visit.page
        await page.get_by_role("button", name="Go back to version 1").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("16 → 8")
        console.settings.values[3] = 77  # somebody else was faster
        await dialog.get_by_role("button", name="Go back").click()
        await expect(dialog).to_contain_text("Version 4 counts now. Something had changed since; this took effect:")
        await expect(dialog).to_contain_text("77 → 8")


async def test_an_answer_that_nobody_waits_for_any_more_is_not_shown() -> None:
    async with looking_at_settings() as (visit, console):
        page, settings, dialog = visit.page, console.settings, visit.page.get_by_role("dialog")
        settings.values = {1: 8, 2: 9, 3: 16}
        await expect(page.locator("#versions tr")).to_have_count(3)
        late = settings.gate = asyncio.Event()
        await page.get_by_role("button", name="Go back to version 1").click()
        await dialog.get_by_role("button", name="Cancel").click()
        settings.gate = asyncio.Event()
        settings.gate.set()
        async with page.expect_response(lambda answer: '"version":1,' in (answer.request.post_data or "")):
            await page.get_by_role("button", name="Go back to version 2").click()
            await expect(dialog).to_contain_text("16 → 9")
            late.set()
        await expect(dialog).to_contain_text("16 → 9")
        assert settings.asked == [(1, True), (2, True)]


async def test_a_secret_that_changes_is_not_told_and_a_new_admin_token_is() -> None:
    async with looking_at_settings() as (visit, console):
        token = ConfigChange("admin.token_sha256", "***", "***", "mag.toml line 2", Effect.LIVE, True)
        console.settings.more_changes = [token]
        await visit.page.get_by_role("button", name="Go back to version 1").click()
        item = visit.page.get_by_role("listitem").filter(has_text="admin.token_sha256")
        await expect(item).to_have_text("admin.token_sha256changedlive · mag.toml line 2")
        await expect(visit.page.get_by_role("dialog")).to_contain_text("everybody is signed out of the console")


async def test_the_node_is_asked_in_one_row_however_often_the_view_changes() -> None:
    async with looking_at_settings() as (visit, _console):
        page = visit.page
        await page.evaluate(
            "() => { window.rounds = 0;"
            " window.setTimeout = (work, ms) => { if (ms === 2000) window.rounds += 1; return 0; }; }"
        )
        views = ["overview", "settings"] * 4
        answered = 0

        def count(answer: Response) -> None:
            nonlocal answered
            answered += answer.url.endswith("api/status")

        page.on("response", count)
        await page.evaluate("views => { for (const view of views) location.hash = view; }", views)
        async with asyncio.timeout(30):
            while answered < len(views) or not await page.evaluate("window.rounds"):
                await asyncio.sleep(0.01)
        await page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert await page.evaluate("window.rounds") == 1


async def test_nothing_to_change_and_a_refusal_leave_nothing_to_confirm() -> None:
    async with looking_at_settings() as (visit, console):
        page, settings = visit.page, console.settings
        dialog = page.get_by_role("dialog")
        settings.refusal = f"magds: {MARKUP} does not answer"
        await page.get_by_role("button", name="Go back to version 1").click()
        await expect(dialog.get_by_role("alert")).to_contain_text(f"{MARKUP} does not answer")
        await expect(dialog.get_by_role("alert")).to_contain_text("Correct what is named")
        await expect(dialog.get_by_role("button", name="Go back")).to_be_disabled()
        await dialog.get_by_role("button", name="Cancel").click()
        settings.refusal = ""
        await page.get_by_role("button", name="Go back to version 1").click()
        await expect(dialog).to_contain_text("16 → 8")
        settings.refusal = "too late"  # after the plan
        await dialog.get_by_role("button", name="Go back").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("too late")
        await expect(dialog.get_by_role("button", name="Go back")).to_be_hidden()
        assert settings.version == 2
        await dialog.get_by_role("button", name="Close").click()
        settings.refusal, settings.values = "", {1: 8, 2: 8, 3: 8}
        await page.get_by_role("button", name="Go back to version 2").click()
        await expect(dialog).to_contain_text("No setting differs.")
        await expect(dialog.get_by_role("button", name="Go back")).to_be_disabled()


async def test_another_admin_token_signs_everybody_out_at_once() -> None:
    async with looking_at_settings(*ENTRIES) as (visit, console):
        page = visit.page
        await page.get_by_role("button", name="Go back to version 1").click()
        await expect(page.get_by_role("dialog")).to_contain_text("16 → 8")
        console.operators.admin_token_number += 1
        await expect(page.get_by_text("Your session has ended.")).to_be_visible()
        await expect(page.get_by_role("dialog")).to_be_hidden()
        assert "magds" not in await page.content()
        assert console.settings.asked == [(1, True)]


async def test_the_address_keeps_the_view_and_the_skip_link_does_not_lose_it() -> None:
    async with looking_at_settings() as (visit, _console):
        page = visit.page
        await page.reload()
        await expect(page.get_by_role("heading", name="Versions")).to_be_visible()
        await page.get_by_role("link", name="Skip to content").press("Enter")
        await expect(page.get_by_role("heading", name="Versions")).to_be_visible()
        await page.get_by_role("link", name="Overview").click()
        await expect(page.get_by_role("heading", name="Live changes")).to_be_visible()
        await expect(page.get_by_role("heading", name="Versions")).to_be_hidden()


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("wide", 1280, False), ("tablet", 820, True), ("phone", 390, True)]
)
async def test_settings_fit_their_screen_and_have_names_for_everything(
    tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    long = ConfigEntry("x." + "long_name" * 20, "y" * 5_000, "/z" * 200, "file", Effect.COMPONENT)
    async with looking_at_settings(*ENTRIES, long, width=width, dark=dark) as (visit, _console):
        page = visit.page
        assert len(await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)) > 10_000
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        wide = "[...document.querySelectorAll('.tall, .tall td')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        assert await page.evaluate(wide) == 0
        await page.get_by_role("button", name="Go back to version 1").click()
        await expect(page.get_by_role("dialog")).to_contain_text("16 → 8")
        box = await page.get_by_role("dialog").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        unnamed = await page.evaluate(
            "[...document.querySelectorAll('button, input, a, dialog, [role=region]')].filter(e => !e.innerText"
            " && !e.getAttribute('aria-label') && !(e.labels && e.labels.length)).map(e => e.outerHTML)"
        )
        assert unnamed == []

"""The Extensions page of a whole node: what waits is read, approved and enabled there, and then does its work."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page, expect
from tests.browser.support import sign_in, visiting
from tests.system.extension_shell import Shell, example, trusted

from magmobo.testing.node import running_node

GUARD = "migration-guard"


async def order(page: Page, button: str, *, typed: str = "") -> None:
    """Press a button of the guard's card, and confirm."""
    await page.get_by_role("region", name=GUARD).get_by_role("button", name=button).click()
    dialog = page.get_by_role("dialog")
    if typed:
        await expect(dialog).to_contain_text("It would read its own tables")
        await expect(dialog.locator(".grants")).to_contain_text("waits for approval")
        await dialog.get_by_label("Type the extension's id").fill(typed)
    await dialog.get_by_role("button", name="Do it").click()
    await expect(dialog).to_be_hidden()


async def test_what_waits_is_approved_and_enabled_and_works(tmp_path: Path) -> None:
    package = await example(Shell(tmp_path), GUARD)
    async with running_node(tmp_path / "mag_data") as node, visiting(node.base_url) as visit:
        operator, page = Shell(tmp_path, node), visit.page
        await trusted(operator)
        await operator.mag("extension:install", package, "--yes")
        await sign_in(page, node.admin_token)
        await page.get_by_role("link", name="Extensions").click()
        shown = page.get_by_role("region", name=GUARD)
        for words in ("Stands before every migration.", "critical", "waits for approval", "the author"):
            await expect(shown).to_contain_text(words)

        await order(page, "Look and approve", typed=GUARD)
        await expect(shown.locator(".grants")).to_contain_text("granted")
        await order(page, "Enable")
        await expect(shown).to_contain_text("healthy")
        answer = await operator.answer("extension:run", GUARD, "check", '{"sql": "drop table t"}')
        assert answer["result"] == {"losses": ["drops a table"]}

        await order(page, "Revoke")
        await expect(shown.locator(".grants")).to_contain_text("revoked")
        await order(page, "Kill")
        await expect(shown).to_contain_text("disabled")
        assert visit.foreign_requests == []
        assert visit.problems == []

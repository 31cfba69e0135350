"""Names, values and reasons from elsewhere in what `config:*` and `vault:*` print: none of them drives a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.hostile.cli.test_terminal import EVILS, drives

from magmobo.cli import plans, vault
from magmobo.contracts import configuration as conf
from magmobo.contracts.planes import SecretInfo
from magmobo.contracts.settings import Effect
from magmobo.contracts.vaults import ImportReport, SecretUse, VaultContents


def lines_with(evil: str) -> Iterator[str]:
    """Every line that there is, with `evil` in every place that can hold text."""
    for is_secret in (True, False):
        entry = conf.ConfigEntry(evil, {evil: [evil]}, evil, evil, Effect.LIVE, is_secret, evil, True, evil)
        plain = conf.ConfigEntry(evil, evil, evil, evil, Effect.NODE, is_secret)
        tree = conf.ConfigTree(1, evil, [entry, plain], held=True, refused=evil)
        yield from plans.tree_lines(tree, origin=True)
        yield from plans.tree_lines(tree, origin=False)
        changes = [conf.ConfigChange(evil, evil, [evil], evil, Effect.COMPONENT, is_secret)]
        plan = conf.ReloadPlan(changes, [evil], [evil], [evil])
        yield from plans.plan_lines(plan)
        yield from plans.outcome_lines(conf.ReloadOutcome(1, True, plan), dry_run=False)
    version = conf.ConfigVersion(1, evil, evil, evil, [evil] * 9, False, False, evil)
    yield from plans.history_lines(conf.ConfigVersions([version]))
    info = SecretInfo(evil, 1, [1], evil, evil)
    yield from vault.contents_lines(VaultContents(evil, evil, [SecretUse(info, [evil]), SecretUse(info, [])]))
    yield from vault.report_lines(ImportReport([evil], [evil], [evil], [evil]), dry_run=True)


@pytest.mark.parametrize("evil", EVILS)
def test_a_line_is_one_line_of_text(evil: str) -> None:
    assert not [line for line in lines_with(f"x{evil}y") if drives(line) or "\n" in line]


def test_columns_hold_for_any_width_and_no_row_is_lost() -> None:
    rows = [["a", "b" * 500, "c"], ["d"], [], ["", "e"]]
    assert [line.split() for line in plans.table(rows)] == [["a", "b" * 500, "c"], ["d"], [], ["e"]]
    assert not list(plans.table([]))

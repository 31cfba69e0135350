"""What section [maggate], and the tables of [magws], may not name: schemas that are nobody's to show."""

from __future__ import annotations

from typing import Any

import pytest

from magmobo.components.maggate.config import MagGateConfig
from magmobo.components.magws.config import MagWSConfig
from magmobo.contracts.errors import ConfigError
from magmobo.kernel.config.loader import build_config

PRIVATE = ["mag", "ext_notes", "ext_a1", "ext_"]


def problems_of(section: str, **values: Any) -> list[str]:
    sections = {"maggate": MagGateConfig, "magws": MagWSConfig}
    with pytest.raises(ConfigError) as refused:
        build_config(sections, {section: values}, {}, {})
    return refused.value.problems


@pytest.mark.parametrize("schema", PRIVATE)
@pytest.mark.parametrize("before", [(), ("public",)])
def test_rest_shows_neither_the_nodes_tables_nor_those_of_an_extension(schema: str, before: tuple[str, ...]) -> None:
    [problem] = problems_of("maggate", schemas=[*before, schema])
    assert problem.startswith("maggate")
    assert repr(schema) in problem
    assert "private" in problem


@pytest.mark.parametrize("schema", PRIVATE)
def test_no_change_of_such_a_table_is_sent_either(schema: str) -> None:
    [problem] = problems_of("magws", tables=[{"table": "orders"}, {"table": f"{schema}.orders"}])
    assert problem.startswith("magws.tables[1]")
    assert repr(schema) in problem


def test_schemas_whose_names_only_look_alike_are_shown() -> None:
    config = build_config(
        {"maggate": MagGateConfig}, {"maggate": {"schemas": ["public", "external", "magazine"]}}, {}, {}
    )
    section = config.section("maggate")
    assert section.schemas == ("public", "external", "magazine")

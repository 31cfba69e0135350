"""What people read about a table that is configured and not published."""

from __future__ import annotations

import pytest

from magmobo.components.magws.published import Refusal
from magmobo.contracts.planes import TableName


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("belongs to role dba", "not live: public.audit: belongs to role dba. Own it."),
        ("public.audit: belongs to role dba", "not live: public.audit: belongs to role dba. Own it."),
        ("nothing is live: it is off. Own it.", "not live: public.audit: nothing is live: it is off. Own it."),
    ],
)
def test_name_and_next_step_stand_there_once(reason: str, expected: str) -> None:
    assert Refusal("MAG-DS-999", reason, "Own it.").notice(TableName("public", "audit")) == expected

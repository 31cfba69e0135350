"""Orders that are worded so that the record of them says less than was done."""

from __future__ import annotations

import msgspec
import pytest

from magmobo.contracts.operations import RegisterComponent
from magmobo.kernel.redact import redact

KNOWN = ["my_package.component:Class", "magds", "weather-station", "a.b.c:D.E", "_private:_Class"]
SLY = [
    "token=evil:Class", "password: evil:Class", "x://a:evil@b:Class", "evil:Class\n", "evil\x1b[2J:Class",
    "../evil:Class", ".evil:Class", "evil:Class\u202e", "evil evil:Class", "'evil':Class", "evil:", ":Class", "a:b:c",
    "",
]  # fmt: skip


@pytest.mark.parametrize("source", SLY)
def test_a_name_that_would_be_masked_or_shown_otherwise_is_refused(source: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"source": source}), type=RegisterComponent)


@pytest.mark.parametrize("source", KNOWN)
def test_what_can_be_registered_stands_in_the_record_as_it_was_asked(source: str) -> None:
    asked = msgspec.json.decode(msgspec.json.encode({"source": source}), type=RegisterComponent)
    assert redact({"params": {"source": asked.source}}) == {"params": {"source": source}}


@pytest.mark.parametrize("source", ["token:Class", "my.secret:Class", "password.x:token", "api_key"])
def test_a_module_that_is_named_like_a_secret_is_recorded(source: str) -> None:
    module = source.partition(":")[0]
    assert redact({"params": {"source": source}})["params"]["source"].startswith(module)

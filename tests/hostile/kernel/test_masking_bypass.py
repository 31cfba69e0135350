"""Secrets that went through something before they came into a log: encoded, quoted, in the middle of other bytes."""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.kernel.masking import Masker

SECRETS = [
    "Pl4nted-Secret",
    "Pl4nted/with+sign~s?&=%",
    'Pl4nted "quoted" \\back',
    "Plänted→ü",
    "short6",
    "x" * 70 + "Pl4nted",
]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": json.dumps,
    "JSON in JSON": lambda secret: json.dumps(json.dumps({"dsn": secret})),
    "Python": repr,
    "Python in a list": lambda secret: str([{"x": secret}]),
    "URL": lambda secret: quote(secret, safe=""),
    "URL, slashes kept": quote,
    "URL, lower case": lambda secret: re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
    "form": quote_plus,
    "query": lambda secret: urlencode({"q": secret}),
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
}
OTHERS = ["", "a", "ab", "abc", "user:", "\0\xff"]


def around(secret: str) -> list[bytes]:
    return [f"{before}{secret}{behind}".encode() for before in OTHERS for behind in OTHERS]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_known_secret_is_hidden_however_it_is_spelt(secret: str, spelling: str) -> None:
    said, masker = SPELLINGS[spelling](secret), Masker([secret])
    assert said not in masker.text(f"before {said} behind")
    assert masker.text(f"before {said} behind").endswith(" behind")
    assert said not in masker.json_lines(json.dumps({"event": said}))


@pytest.mark.parametrize("secret", SECRETS)
def test_a_known_secret_is_hidden_in_base64_wherever_it_stands_in_it(secret: str) -> None:
    masker = Masker([secret])
    for content in around(secret):
        for said in (
            b64encode(content).decode(),
            urlsafe_b64encode(content).decode(),
            b64encode(content).decode().rstrip("="),
        ):
            shown = masker.text(f"blob {said} end")
            assert "***" in shown
            kept = "".join(part for part in shown.removeprefix("blob ").removesuffix(" end").split("***"))
            assert len(kept) <= len(said) - (len(secret.encode()) * 8 // 6 - 3)


@given(st.text(min_size=8, max_size=40), st.binary(max_size=7), st.binary(max_size=7))
def test_any_secret_in_any_base64(secret: str, before: bytes, behind: bytes) -> None:
    said = b64encode(before + secret.encode() + behind).decode()
    assert Masker([secret]).text(f"x={said}") != f"x={said}"


def test_an_archive_is_searched_in_reasonable_time() -> None:
    """3 MB for 100 secrets; what this takes is not measured, but trying all of them at each place would not end."""
    masker = Masker(f"secret number {number} of a node" for number in range(100))
    line = json.dumps({"event": "request", "path": "/rest/v1/flights?select=*", "took_s": 0.25}) + "\n"
    assert masker.text(line * (3_000_000 // len(line))).count("request") > 10_000

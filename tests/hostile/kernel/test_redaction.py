"""Secrets in free text that earlier nets let through."""

from __future__ import annotations

import time

import pytest

from magmobo.kernel.redact import MAX_TEXT_CHARS, redact_text

LONG = "t" * 1_500  # as a cloud's login tokens are


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"cannot reach postgres://me:{LONG}@host/db now", "cannot reach postgres://me:***@host/db now"),
        (f"http://a/b,postgres://me:{LONG}@host", "http://a/b,postgres://me:***@host"),
        ("postgres://me:p@ss@host/db", "postgres://me:***@host/db"),
        ("see http://127.0.0.1:8787/console/", "see http://127.0.0.1:8787/console/"),
    ],
)
def test_a_password_of_any_length_is_hidden(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "secret", ["postgres://me:hunter2hunter2@host/db", "password=hunter2hunter2", "Bearer hunter2hunter2"]
)
def test_a_secret_across_the_cut_is_hidden(secret: str) -> None:
    for shift in range(len(secret)):
        assert "hunter2" not in redact_text("x" * (MAX_TEXT_CHARS - shift - 1) + " " + secret)


def test_urls_without_end_cost_little() -> None:
    for text in ("a://b:" * 50_000, "a://b:c@" * 50_000, "a://" + "@" * 200_000, "a://b:" + ":" * 200_000):
        started_s = time.process_time()
        redact_text(text)
        assert time.process_time() - started_s < 0.5

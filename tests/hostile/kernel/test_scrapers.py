"""`/metrics` asked for in ways that nobody would: the answer is always one."""

from __future__ import annotations

import pytest

from magmobo.kernel.observe.metrics import MetricsRegistry


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc", "application/openmetrics-text; version=",
        "application/openmetrics-text;version",
        "text/plain; version=1.x.0; escaping=zzz", "text/plain;escaping=", ",;,=;==", "\xff\0", "a" * 8_000,
        "q=;" * 2_000,
        "application/openmetrics-text; version=1.0.0; escaping=\xff", "application/openmetrics-text; version=9.9.9.9.9",
    ],
)  # fmt: skip
def test_any_accept_header_gets_the_figures(accept: str) -> None:
    registry = MetricsRegistry()
    registry.scoped("x").counter("mag_test_total", "Tests.").inc(7)
    content_type, text = registry.exposition(accept)
    assert b"mag_test_total 7.0" in text
    assert content_type.isprintable()

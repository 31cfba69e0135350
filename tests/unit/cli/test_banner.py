"""The banner: never more than twelve lines, and what matters always in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from magmobo.cli.banner import MAX_LINES, banner
from magmobo.contracts.planes import NodeStatus

TEXTS = st.lists(st.text(max_size=50), max_size=20)


def status(urls: dict[str, str], examples: list[str], notices: list[str]) -> NodeStatus:
    return NodeStatus("id", "ready", "test", "1.2.3", 0.1, [], urls, examples, notices)


@given(
    st.dictionaries(st.text(max_size=10), st.text(max_size=50), max_size=20), TEXTS, TEXTS, st.none() | st.just("tok")
)
def test_at_most_twelve_printable_lines(
    urls: dict[str, str], examples: list[str], notices: list[str], token: str | None
) -> None:
    lines = banner(status(urls, examples, notices), ready_s=1.5, admin_token=token, stop_with="stop me", log_file="log")
    assert len(lines) <= MAX_LINES
    assert all((line.label + line.text).isprintable() for line in lines)
    labels = [line.label for line in lines]
    assert lines[0].text == "MagMoBo 1.2.3 is ready after 1.5 s"
    assert (lines[-2].text, lines[-1].text) == ("stop me", "log")
    assert ("token" in labels) or token is None
    if notices:
        assert "note" in labels, "what is not possible is never dropped without a word"


def test_everything_is_shown_while_there_is_room() -> None:
    lines = banner(
        status({"rest": "http://r", "realtime": "ws://r"}, ["curl", "subscribe"], ["no live changes: why", "and this"]),
        ready_s=0.25,
        admin_token="tok",
        stop_with="Ctrl-C",
        log_file="mag.jsonl",
    )
    assert [(line.label, line.text) for line in lines[1:]] == [
        ("rest", "http://r"),
        ("realtime", "ws://r"),
        ("try", "curl"),
        ("try", "subscribe"),
        ("token", "tok  (admin; shown this once)"),
        ("note", "no live changes: why"),
        ("note", "and this"),
        ("stop", "Ctrl-C"),
        ("log", "mag.jsonl"),
    ]


def test_what_does_not_fit_is_counted() -> None:
    lines = banner(
        status({}, [], [f"notice {number}" for number in range(20)]),
        ready_s=0.2,
        admin_token=None,
        stop_with="Ctrl-C",
        log_file="log",
    )
    assert len(lines) == MAX_LINES
    assert lines[-3].text == "12 more: `mag status`"

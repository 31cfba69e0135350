"""Two hundred secrets, in the places where secrets turn up, and words that must stay readable."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from magmobo.contracts.secret import Secret
from magmobo.kernel.masking import Masker, named_secrets
from magmobo.kernel.spellings import secret_parts, secrets_in

PLACES: dict[str, Callable[[str], str]] = {
    "url": lambda s: f"cannot reach postgres://app:{s}@db.example:5432/shop: refused",
    "url with a query": lambda s: f"GET /rest/v1/orders?select=*&access_token={s}&limit=1 401",
    "libpq": lambda s: f"connection to host=db password={s} user=app failed",
    "libpq quoted": lambda s: f"host=db password = '{s}' dbname=x",
    "environment": lambda s: f"PGPASSWORD={s} AWS_SECRET_ACCESS_KEY={s}",
    "python repr": lambda s: f"Settings(name='x', api_key='{s}', retries=3)",
    "json": lambda s: json.dumps({"name": "x", "password": s, "retries": 3}),
    "json in json": lambda s: json.dumps({"body": json.dumps({"client_secret": s, "a": 1})}),
    "bearer": lambda s: f"Authorization: Bearer {s}",
    "header in python": lambda s: f"{{'authorization': 'Token {s}', 'accept': '*/*'}}",
    "cookie": lambda s: f"Cookie: theme=dark; session={s}; lang=en",
    "api key header": lambda s: f"X-Api-Key: {s}",
    "yaml": lambda s: f"  passphrase: {s}",
    "signature": lambda s: f"POST /apps/1/events?auth_key=k&auth_signature={s}",
    "pusher": lambda s: f'{{"event":"pusher:subscribe","data":{{"channel":"private-x","auth":"{s}"}}}}',
    "redis": lambda s: f"redis://:{s}@cache:6379/0 is gone",
    "private key": lambda s: f"-----BEGIN PRIVATE KEY-----\n{s}\n{s}\n-----END PRIVATE KEY-----",
    "half a private key": lambda s: f"read -----BEGIN RSA PRIVATE KEY-----\n{s}\n{s}",
    "known, in a sentence": lambda s: f"somebody typed {s} into the wrong field",
    "known, as a table name": lambda s: f'relation "public.{s}" does not exist',
}
ALPHABET = string.ascii_letters + string.digits + "-_.~+%$"


def planted(place: str, number: int) -> str:
    """The same for every run; no secret is a part of an ordinary word."""
    chance = random.Random(f"{place}/{number}")
    return "Pl4nted" + "".join(chance.choice(ALPHABET) for _ in range(chance.randrange(9, 40))) + "Z"


SECRETS = [(place, planted(place, number)) for place in PLACES for number in range(10)]


def test_there_are_two_hundred() -> None:
    assert len({secret for _, secret in SECRETS}) == 200


@pytest.mark.parametrize(("place", "secret"), SECRETS)
def test_a_planted_secret_does_not_come_through(place: str, secret: str) -> None:
    text = PLACES[place](secret)
    masker = Masker([secret] if place.startswith("known") else [])
    line = json.dumps({"event": text, "fields": [{"error": text}]})
    for shown in (masker.text(text), masker.text(f"before\n{text}\nafter"), masker.json(line), masker.json(text)):
        assert "Pl4nted" not in shown
        assert secret not in shown


@pytest.mark.parametrize(
    "secret", ["Pl4nted\"with 'quotes'", "Pl4nted\\back\\slash", "Pl4ntedü/ä@:?&=%20", "Pl4nted\nline"]
)
def test_a_known_secret_is_found_in_every_spelling(secret: str) -> None:
    from urllib.parse import quote

    masker = Masker([secret])
    for text in (secret, json.dumps(secret), json.dumps({"a": [secret]}), quote(secret, safe=""), f"x{secret}y"):
        assert "Pl4nted" not in masker.text(text)
        assert "Pl4nted" not in masker.json(json.dumps({"key": text}))


@pytest.mark.parametrize(
    "token",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYWRtaW4ifQ.c2lnbmF0dXJl", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 9, "glpat-" + "a1B2" * 5, "xoxb-1234-5678-abcdef", "sk-proj-" + "a1B2" * 8,
        "sk_live_" + "a1B2" * 6,
    ],
)  # fmt: skip
def test_a_token_of_a_known_shape_needs_no_name(token: str) -> None:
    assert Masker().text(f"it said {token} and left") == "it said *** and left"


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-22T10:00:00Z component.failed  name=magds error=[MAG-DS-101] no route to host 10.0.0.1",
        "kernel.data_dir = \"mag_data\"  (default)",
        "    /usr/lib/python3.11/asyncio/base_events.py:640 in BaseEventLoop.run_forever",
        "see http://127.0.0.1:8787/console/ and ws://127.0.0.1:8787/app/1",
        "mag_bus_events_total{topic=\"component.started\"} 12",
        "the author of authority passed by",
    ],
)  # fmt: skip
def test_what_helps_stays_readable(line: str) -> None:
    assert Masker(["Pl4nted-secret"]).text(line) == line


def test_a_key_over_several_lines_of_a_json_log_is_hidden_and_the_log_goes_on() -> None:
    key = f"-----BEGIN PRIVATE KEY-----\n{'Pl4nted' * 8}\n{'Pl4nted' * 8}\n-----END PRIVATE KEY-----"
    shown = Masker().json_lines(f'{{"event": "a"}}\n{key}\n{{"event": "b"}}\n')
    assert shown == '{"event": "a"}\n***\n{"event": "b"}\n'
    endless = Masker().json_lines("-----BEGIN PRIVATE KEY-----\n" + '{"event": "a"}\n' * 2_000)
    cut = "".join(key.partition("\n")[1:])
    assert Masker().text(f"{cut}\nafter") == "***\nafter", "the log was cut in the middle of the key"
    assert endless.count('{"event": "a"}') > 1_000, "who writes half a key cannot hide a log"


def test_json_stays_json() -> None:
    value = {"token_count": 5, "tokens": [1, 2], "a": {"password": "x", "b": None, "secret": None, "is_secret": True}}
    shown = json.loads(Masker().json(json.dumps(value)))
    below = {"password": "***", "b": None, "secret": None, "is_secret": True}
    assert shown == {"token_count": "***", "tokens": "***", "a": below}


@given(st.text(alphabet=st.sampled_from("pasword=:\"'\\/@ {}[],eyJ.-\n\t\x1b\0ü"), max_size=200))
def test_any_text_is_taken(text: str) -> None:
    shown = Masker(["secret-of-mine"]).text(text)
    assert all(char.isprintable() or char in "\t\n" for char in shown)
    Masker(["secret-of-mine"]).json(text)


@given(st.lists(st.text(min_size=6, max_size=20), min_size=1, max_size=5), st.text(max_size=50))
def test_no_known_secret_is_ever_in_the_result(secrets: list[str], around: str) -> None:
    masker = Masker(secrets)
    for secret in secrets:
        shown = masker.text(f"{around}{secret}{around}")
        assert secret not in shown or not secret.strip("* ")


@pytest.mark.parametrize(
    "evil",
    [
        "pass" * 20_000, "password=" * 9_000, "a" * 80_000, "\\" * 80_000, 'password="' + "\\" * 80_000,
        "eyJ" * 27_000, "eyJaaaaaaaaaa." * 6_000, "-----BEGIN PRIVATE KEY" * 4_000, "cookie:" * 11_000,
        "://a:" * 16_000, "token\\'" * 11_000,
    ],
    ids=lambda evil: evil[:12],
)  # fmt: skip
def test_no_text_holds_the_search_up(evil: str) -> None:
    """A pattern that tries every way to read these would not be done in the life of a test."""
    for text in (evil, f"{evil}\n" * 10):
        Masker().text(text)
        Masker().json(json.dumps(text))


class Part(Struct, frozen=True):
    key: str
    secret: Secret


class Section(Struct, frozen=True):
    dsn: Secret
    parts: tuple[Part, ...]
    table: dict[str, Secret | None]


def test_the_secrets_of_a_configuration_and_the_passwords_in_them_are_known() -> None:
    section = Section(Secret("postgres://me:inner-pw@h/d"), (Part("public", Secret("s1-secret")),), {"x": Secret("s2")})
    assert list(secrets_in([section])) == ["postgres://me:inner-pw@h/d", "inner-pw", "s1-secret", "s2"]


def test_the_passwords_of_a_connection_string_are_known() -> None:
    assert "p w" in set(secret_parts("host=h password='p w' user=u"))
    assert "pw" in set(secret_parts("postgres://h/d?user=u&password=pw&sslmode=require"))
    assert "p@w" in set(secret_parts("postgres://u:p@w@h/d"))


def test_a_settings_file_names_its_secrets() -> None:
    table = {"magws": {"apps": [{"key": "k", "secret": "app-secret"}]}, "cache": {"url": "redis://:pw@h"}, "port": 7}
    assert set(named_secrets(table)) == {"app-secret", "pw"}

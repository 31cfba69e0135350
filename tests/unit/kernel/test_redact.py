"""What a text looks like decides what is hidden of it, and what a node knows hides the rest."""

from __future__ import annotations

import json
import os
import re
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magmobo.contracts.secret import Secret
from magmobo.kernel.config.core import CORE_SECTIONS, SecurityConfig
from magmobo.kernel.config.layers import Layer
from magmobo.kernel.config.loader import Config, load_config
from magmobo.kernel.known import MAX_SECRETS, KnownSecrets
from magmobo.kernel.needles import MIN_CHARS, Needles
from magmobo.kernel.redact import redact, redact_text
from magmobo.kernel.spellings import telling_parts
from magmobo.node.names import names_key

SECRET = "Pl4nted-by-a-test-1"


def knowing(*secrets: str) -> KnownSecrets:
    known = KnownSecrets()
    for secret in secrets:
        known.add(secret)
    return known


def config(**sections: dict[str, object]) -> Config:
    return load_config(CORE_SECTIONS, [Layer("test", "test", sections)])


# ---------------------------------------------------------------- by looks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it said eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln here", "it said *** here"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key *** used"),
        ("pushed with ghp_0123456789abcdefghijABCD", "pushed with ***"),
        ("hvs.CAESIJ0123456789abcdefghij denied", "*** denied"),
        ("AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQ", "***"),
        ("a\n-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nb", "a\n***\nb"),
        ("api_key=abc123 and passphrase: xyz", "api_key=*** and passphrase: ***"),
        (json.dumps(json.dumps({"password": "two words", "a": 1})), '"{\\"password\\": ***\\", \\"a\\": 1}"'),
        ("Authorization: Bearer abcdefgh123", "Authorization: Bearer ***"),
        ("maggate.jwt.secret = ***: expected text", "maggate.jwt.secret = ***: expected text"),
        ("vault.token: expected text", "vault.token: expected text"),
        ("a.secret: vault:x@2 cannot be followed: no", "a.secret: vault:x@2 cannot be followed: no"),
        ("a.secret: vault:x is mine", "a.secret: *** is mine"),
        ("no route to host 10.0.0.1", "no route to host 10.0.0.1"),
        ("/data/postgres/cluster", "/data/postgres/cluster"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize("name", ["api-key", "X-Api-Key", "access_key", "private-key", "db_pwd", "dsn", "passphrase"])
def test_a_name_that_sounds_secret_hides_what_stands_under_it(name: str) -> None:
    assert redact({name: "x1"}) == {name: "***"}


@pytest.mark.parametrize("name", ["pwd", "key", "keys", "monkey", "passed", "bypass", "password_ok"])
def test_a_name_that_does_not_sound_secret_hides_nothing(name: str) -> None:
    assert redact({name: True if name.endswith("ok") else "x1"})[name] != "***"


def test_a_secret_that_is_a_key_is_hidden_as_well() -> None:
    assert knowing(SECRET).value({"a": {f"x {SECRET}": 1}}) == {"a": {"x ***": 1}}
    assert redact({"a": {"postgres://u:pw@h": 1}}) == {"a": {"postgres://u:***@h": 1}}


# ---------------------------------------------------------------- many needles


@given(
    st.lists(st.text(alphabet="abcdéf-1", min_size=MIN_CHARS, max_size=14), min_size=1, max_size=30),
    st.lists(st.text(alphabet="abcdéf-1 ", max_size=9), min_size=1, max_size=6),
    st.data(),
)
def test_no_needle_is_left_wherever_it_stood(needles: list[str], between: list[str], data: st.DataObject) -> None:
    search = Needles()
    for needle in needles:
        search.add(needle)
    text = "".join(part + data.draw(st.sampled_from(needles)) for part in between)
    shown = search.replaced(text, "*")
    assert "*" in shown
    assert not any(needle in part for part in shown.split("*") for needle in needles)
    assert set(shown) <= set(text) | {"*"}


@given(st.text(max_size=60))
def test_text_without_needles_is_as_it_was(text: str) -> None:
    search = Needles()
    search.add("\ue000\ue001\ue002\ue003\ue004\ue005")
    search.add("short")
    assert search.replaced(text, "*") == text


def test_needles_that_overlap_go_together_and_one_that_was_cut_goes_too() -> None:
    search = Needles()
    for needle in ("abcdefgh", "efghijkl", "0123456789abcdefghij"):
        search.add(needle)
    assert search.replaced("x abcdefghijkl y", "*") == "x * y"
    assert search.replaced("cut 0123456789ab", "*") == "cut *"
    assert search.replaced("cut 012345…", "*") == "cut *…"
    assert search.replaced("012345 is a number", "*") == "012345 is a number"
    assert search.replaced("not cut 012345", "*") == "not cut 012345"
    search.add("a123456789bcdef")
    assert search.replaced("123456789a", "*") == "123456789a", "what begins before the text is not there"


# ---------------------------------------------------------------- what a node knows

SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": json.dumps,
    "JSON in JSON": lambda secret: json.dumps(json.dumps([secret])),
    "Python": repr,
    "URL": lambda secret: quote(secret, safe=""),
    "URL, lower case": lambda secret: re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
    "path": quote,
    "form": quote_plus,
    "hex": lambda secret: secret.encode().hex(),
    "HEX": lambda secret: secret.encode().hex().upper(),
    "base64": lambda secret: b64encode(secret.encode()).decode(),
    "base64 of more": lambda secret: b64encode(f"user:{secret}@x".encode()).decode(),
    "base64 for URLs": lambda secret: urlsafe_b64encode(f"u{secret}".encode()).decode(),
}
SECRETS = [SECRET, 'Pl4nted "q" \\b/+?&=%~', "Plänted→ü-ß", "hunter2x", "0123456789abcdef", "x" * 5_000 + "Pl4nted"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:12])
def test_a_known_secret_is_hidden_however_it_is_spelt(secret: str, spelling: str) -> None:
    known, said = knowing(secret), SPELLINGS[spelling](secret)
    kept = {"base64": 3, "base64 of more": 14, "base64 for URLs": 5, "JSON in JSON": 10}.get(spelling, 6)
    for shown in (known.text(f"it is {said}"), known.value({"a": [{"b": f"it is {said}"}]})["a"][0]["b"]):
        assert shown.startswith("it is ")
        assert len(shown) <= len("it is ***") + kept
    assert said not in json.loads(known.answer(json.dumps({"a": [said], said: 1}).encode()))["a"][0]


@given(st.text(min_size=6, max_size=40).filter(lambda text: not text.isalpha() and not text.isdigit()))
def test_any_known_secret_is_hidden(secret: str) -> None:
    shown = knowing(secret).hidden(f"<{secret}>")
    assert f"<{secret}>" != shown


def test_ordinary_words_and_numbers_stay_readable_even_if_somebody_made_them_a_secret() -> None:
    known = knowing("postgres", "running", "100000", "abc12")
    text = "postgres is running with 100000 rows, abc12"
    assert known.hidden(text) == text
    assert known.text("postgres://u:postgres@h") == "postgres://u:***@h"


def test_of_a_connection_string_the_password_is_the_secret_and_the_rest_is_not() -> None:
    known = knowing("postgres://app:p%40ss-w0rd@db/shop?sslmode=require", "host=db password='it s-3cret' user=u")
    assert known.hidden("app at db/shop, p@ss-w0rd, p%40ss-w0rd, it s-3cret") == "app at db/shop, ***, ***, ***"
    without = "postgres:///shop?host=/run/postgres"
    assert knowing(without).hidden(f"connected to {without}") == f"connected to {without}"
    hook = "https://hooks.example/T0/B0/xYz-123"
    assert knowing(hook).hidden(f"post to {hook}") == "post to ***"


def test_the_lines_of_a_key_are_known_one_by_one() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nshort\n-----END PRIVATE KEY-----"
    assert knowing(key).hidden("line MIIEvQIBADANBgkqhkiG9w0B") == "line ***"
    assert "short" not in set(telling_parts(key))


def test_a_configuration_is_learnt_and_what_was_rotated_out_stays_known() -> None:
    known = KnownSecrets()
    known.learn(config(cache={"redis_url": "redis://:old-Pl4nted-1@h"}, vault={"token": "tok-Pl4nted-1"}))
    known.learn(config(cache={"redis_url": "redis://:new-Pl4nted-2@h"}))
    assert known.hidden("old-Pl4nted-1 new-Pl4nted-2 tok-Pl4nted-1 other") == "*** *** *** other"


def test_what_is_learnt_later_counts_at_once() -> None:
    known = KnownSecrets()
    assert known.text(SECRET) == SECRET
    known.add(SECRET)
    assert known.text(SECRET) == "***"


def test_the_oldest_are_forgotten_when_there_are_far_too_many() -> None:
    known = knowing("first-Pl4nted", "again-Pl4nted")
    for number in range(MAX_SECRETS + 400):
        known.add(f"secret-{number:06}-x")
    known.add("again-Pl4nted")
    assert known.hidden("first-Pl4nted again-Pl4nted") == "*** ***"
    for number in range(MAX_SECRETS + 400, MAX_SECRETS + 600):
        known.add(f"secret-{number:06}-x")
    assert known.hidden("first-Pl4nted again-Pl4nted secret-000100-x") == "first-Pl4nted *** secret-000100-x"
    assert known.hidden(f"secret-{MAX_SECRETS:06}-x secret-{MAX_SECRETS + 599:06}-x") == "*** ***"
    assert known.public_text("first-Pl4nted secret-002000-x secret-00") == "first-Pl4nted secret-002000-x secret-00"


def test_secrets_of_the_environment_are_known_by_their_names() -> None:
    known = KnownSecrets()
    known.learn_environment(
        {"CI_API_TOKEN": "tok-Pl4nted-1", "OTHER_URL": "amqp://u:in-Pl4nted@h", "HOME": "/home/somebody-1",
         "PWD": "/srv/mag-1", "DB_PASSWORD_FILE": "/run/secrets/db-1"}
    )  # fmt: skip
    shown = known.hidden("tok-Pl4nted-1 in-Pl4nted /home/somebody-1 /srv/mag-1 /run/secrets/db-1")
    assert shown == "*** *** /home/somebody-1 /srv/mag-1 /run/secrets/db-1"


def test_answers_stay_json_and_mean_the_same() -> None:
    known = knowing('a"Pl4nted\\', "1234567890-x", "Pl4nted'\\1")
    value = {"n": 1.5, "list": [None, True, 'x a"Pl4nted\\ y'], 'a"Pl4nted\\': {"deep": "ok"}}
    encoded = json.dumps(value).encode()
    assert json.loads(known.answer(encoded)) == {"n": 1.5, "list": [None, True, "x *** y"], "***": {"deep": "ok"}}
    quoted = json.dumps({"error": "no " + repr(["Pl4nted'\\1"])}).encode()
    assert json.loads(known.answer(quoted)) == {"error": 'no ["***"]'}
    untouched = b'{"state": "running",   "n": 1234567890}'
    assert known.answer(untouched) is untouched


def test_a_public_door_hides_what_nobody_can_guess_and_leaves_an_applications_own_words() -> None:
    known = knowing("short-1x", SECRET, "aaaaaaaaaaaaaaaaaaaaaaaa1")
    assert known.public_text(f"it is {SECRET}") == "it is ***"
    for text in ("it is short-1x", "it is aaaaaaaaaaaaaaaaaaaaaaaa1", "invalid token: expired"):
        assert known.public_text(text) == text, "a guess that comes back hidden was right"
    assert known.public_text("redis://u:short-1x@h") == "redis://u:***@h"


def test_a_text_that_is_cut_is_searched_beyond_the_cut() -> None:
    known = knowing(SECRET, "y" * 30 + "z" * 9_000)
    for shift in range(len(SECRET)):
        assert "Pl4nted" not in known.text("x" * (16_384 - shift) + SECRET)
    assert "yyy" not in known.text("x" * 16_350 + "y" * 30 + "z" * 9_000)


# ---------------------------------------------------------------- people


def test_e_mail_addresses_are_hidden_when_that_is_asked_for() -> None:
    known, text = KnownSecrets(), "mail from ada.l+x@mail.example.org failed"
    known.learn(config())
    assert known.text(text) == text
    known.learn(config(security={"redact_emails": True}))
    assert known.text(text) == "mail from *** failed"
    assert known.value({"x": [text]}) == {"x": ["mail from *** failed"]}
    known.learn(config())
    assert known.text(text) == text


@pytest.mark.parametrize("field", ["user", "username", "user_id", "login", "sub"])
def test_names_of_people_are_hashes_that_stay_the_same_on_one_node(field: str) -> None:
    known, other = KnownSecrets(), KnownSecrets()
    known.names_key = other.names_key = lambda: b"k" * 32
    shown = known.value({field: "ada"})[field]
    assert re.fullmatch(r"user:[0-9a-f]{8}", shown)
    assert shown == other.value({field: "ada"})[field] != known.value({field: "bob"})[field]
    assert KnownSecrets().value({field: "ada"})[field] != shown
    assert known.value({field: 7, "component": "ada"}) == {field: 7, "component": "ada"}


def test_the_key_of_the_hashes_stays_with_the_data_folder(tmp_path: Path) -> None:
    first = names_key(tmp_path)
    assert names_key(tmp_path) == first
    assert (tmp_path / "names.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "names.key").write_text("cut off")
    second = names_key(tmp_path)
    assert second != first
    assert names_key(tmp_path) == second
    assert len(names_key(tmp_path / "none")) == len(os.urandom(32))


# ---------------------------------------------------------------- from several threads


def test_learning_and_hiding_in_several_threads() -> None:
    known, wrong = KnownSecrets(), []

    def learn_and_hide(thread: int) -> None:
        for number in range(50):
            secret = f"secret-{thread}-{number}-Pl4nted"
            known.add(secret)
            if "Pl4nted" in known.text(f"it is {secret}"):
                wrong.append(secret)

    threads = [threading.Thread(target=learn_and_hide, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class SlowSecret(Secret):
    """Somebody is in the middle of learning it until `go` is set."""

    entered, go = threading.Event(), threading.Event()

    def reveal(self) -> str:
        self.entered.set()
        self.go.wait(20)
        return super().reveal()


class SlowConfig:
    """As much of a `Config` as is learnt from."""

    sections = ("security", "slow")

    def section(self, name: str) -> object:
        return SecurityConfig() if name == "security" else {"key": SlowSecret(SECRET)}


def test_who_writes_while_another_thread_still_learns_waits_for_it() -> None:
    known, shown = KnownSecrets(), []
    known.learn(SlowConfig())  # type: ignore[arg-type]
    first = threading.Thread(target=lambda: known.text("something else"))
    second = threading.Thread(target=lambda: shown.append(known.text(f"it is {SECRET}")))
    first.start()
    assert SlowSecret.entered.wait(20)
    second.start()
    second.join(0.2)  # long enough for one that does not wait
    SlowSecret.go.set()
    for thread in (first, second):
        thread.join(20)
    assert shown == ["it is ***"]

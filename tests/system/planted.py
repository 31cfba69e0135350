"""Two hundred secrets, where a user may put them, how each may be spelt, and a component that lets all of them slip.

`PLACES` says how many are planted where; a new place is one line there and a few in `plant`.
"""

from __future__ import annotations

import json
import random
import string
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

PLACES = {
    "mag.toml": 58, "mag.d": 40, "vault": 20, "rotated": 2, "environment": 40, "files": 10,
    "apps": 20, "variables": 8, "jwt": 1, "dsn": 1,
}  # fmt: skip
_TOKENS = ("jwt", "apps", "vault", "rotated")
_LETTERS = string.ascii_letters + string.digits
_KINDS = ("token", "punctuation", "letters of Europe", "short", "long", "key")


def secrets() -> Mapping[str, list[str]]:
    """By place; the same in every run, and none of them a part of an ordinary word."""
    chance = random.Random("planted")
    return {
        place: [_secret(chance, "token" if place in _TOKENS else _KINDS[n % len(_KINDS)]) for n in range(count)]
        for place, count in PLACES.items()
    }  # fmt: skip


def _secret(chance: random.Random, kind: str) -> str:
    def some(count: int, of: str = _LETTERS) -> str:
        return "".join(chance.choice(of) for _ in range(count))

    match kind:
        case "punctuation":
            return f"Pl4nted{some(20, _LETTERS + string.punctuation.replace('/', '').replace('@', ''))}"
        case "letters of Europe":
            return f"Pl4nted{some(12, 'äöüßéèñçøå→')}{some(6)}"
        case "short":
            return f"Pl4{some(7)}"
        case "long":
            return some(300)
        case "key":
            lines = "\n".join(some(64) for _ in range(4))
            return f"-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----"
    return some(40)


def spellings(secret: str) -> Iterator[bytes]:
    """What must not be found of it anywhere. Written apart from what hides it, so that both cannot be wrong alike."""
    raw = secret.encode()
    in_json = json.dumps(secret)[1:-1]
    yield from (raw, in_json.encode(), json.dumps(secret, ensure_ascii=False)[1:-1].encode())
    yield from (repr(secret)[1:-1].encode(), raw.hex().encode(), raw.hex().upper().encode())
    yield from (quote(secret, safe="").encode(), quote(secret).encode(), quote_plus(secret).encode())
    for encode in (b64encode, urlsafe_b64encode):
        for before in (b"", b"x", b"xy"):
            whole = encode(before + raw)
            yield whole[4 if before else 0 : (len(before + raw) // 3) * 4]  # without what depends on its neighbours
    for line in secret.splitlines()[1:-1]:
        yield line.encode()


def plant(folder: Path, planted: Mapping[str, list[str]], *, database: str, socket_dir: Path) -> dict[str, str]:
    """Write the settings into `folder`; the environment for the node. The vault is filled with `vault.env`, and what is
    rotated comes with `rotate`.
    """
    (folder / "mag.d").mkdir()
    (folder / "leaky.py").write_text(LEAKY)
    known = [one for place, secrets in planted.items() if place != "rotated" for one in secrets]
    (folder / "everything.json").write_text(json.dumps(known))
    (folder / "vault.env").write_text("".join(f"K{n}='{secret}'\n" for n, secret in enumerate(planted["vault"])))
    apps = "".join(
        f'[[magws.apps]]\nid = "{number}"\nkey = "app-{number}"\nsecret = {_toml(secret)}\n'
        for number, secret in enumerate(planted["apps"], 1)
    )
    (folder / "mag.toml").write_text(
        '[kernel]\ncomponents = ["listener", "magds", "maggate", "magws", "extensions", "console", "leaky:Leaky"]\n'
        f'[logging]\nlevel = "debug"\nformat = "json"\n[maggate]\nanonymous_role = "mag_planted"\n'
        f"[maggate.jwt]\nsecret = {_toml(planted['jwt'][0])}\n[recovery]\nrestarts = 0\n"
        f"{apps}[leaky.secrets]\n{_table(planted['mag.toml'])}[leaky.stored]\n"
        + "".join(f'k{number} = "vault:k{number}"\n' for number in range(PLACES["vault"]))
    )
    _write_more(folder, planted["mag.d"])
    password = quote(planted["dsn"][0], safe="")
    environ = {
        "PYTHONPATH": str(folder),
        "MAG_LEAKY__OTHERS": json.dumps({f"k{n}": secret for n, secret in enumerate(planted["environment"])}),
        "DATABASE_URL": f"postgres://postgres:{password}@/{database}?host={socket_dir}&port=5432",
    }  # fmt: skip
    environ |= {f"SERVICE_{n}_API_TOKEN": secret for n, secret in enumerate(planted["variables"])}
    for number, secret in enumerate(planted["files"]):
        path = folder / f"secret-{number}"
        path.write_text(secret)
        environ[f"MAG_LEAKY__KEPT__K{number}_FILE"] = str(path)
    return environ


def rotate(folder: Path, planted: Mapping[str, list[str]]) -> None:
    """The first secrets of mag.d are others from now on."""
    _write_more(folder, planted["rotated"] + planted["mag.d"][len(planted["rotated"]) :])


def _write_more(folder: Path, secrets: list[str]) -> None:
    (folder / "mag.d" / "more.toml").write_text(f"[leaky.more]\n{_table(secrets)}")


def _table(secrets: list[str]) -> str:
    return "".join(f"k{number} = {_toml(secret)}\n" for number, secret in enumerate(secrets))


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


LEAKY = '''
import asyncio, json, logging, threading, warnings
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.component import Announcement, Component, Context
from magmobo.contracts.events import ConfigReloadFailed, HealthFailed
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.contracts.secret import Secret

EVERYTHING = json.loads((Path(__file__).parent / "everything.json").read_text())
SPELT = (str, repr, lambda s: json.dumps({"x": s}), lambda s: quote(s, safe=""), lambda s: s.encode().hex(),
         lambda s: b64encode(b"user:" + s.encode()).decode(), lambda s: b64encode(s.encode()).decode())


class LeakyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secrets: dict[str, Secret] = {}
    more: dict[str, Secret] = {}
    others: dict[str, Secret] = {}
    kept: dict[str, Secret] = {}
    stored: dict[str, Secret] = {}


class Leaky(Component):
    """Says every secret in every way that a careless component has."""

    name = "leaky"
    config_type = LeakyConfig
    essential = False

    def __init__(self, context: Context) -> None:
        self._context, self._starts = context, 0

    def configure(self, config: LeakyConfig) -> None:
        self._context.log.info("configured", config=config, secrets=config.secrets)
        own = [secret.reveal() for secret in config.more.values()]
        self._said = EVERYTHING + [secret for secret in own if secret not in EVERYTHING]

    async def start(self) -> None:
        self._starts += 1
        for number, secret in enumerate(self._said):
            self._tell(number, secret)
            await asyncio.sleep(0)
        self._context.log.info("all said", rotated=len(self._said) - len(EVERYTHING))
        await self._context.audit.record(
            "component.restart", actor=Actor(name="component:leaky", role=Role.VIEWER, via="component"),
            payload={"why": EVERYTHING[:20], "nested": {"deep": [{"x": EVERYTHING[20:40]}]}},
        )
        if self._starts > 1:
            raise RuntimeError(f"cannot start with {EVERYTHING}")

    def _tell(self, number: int, secret: str) -> None:
        context, library = self._context, logging.getLogger("a.library")
        for spell in SPELT:
            context.log.debug("said", words=f"it is {spell(secret)}, I think", inner=[{"deep": {spell(secret): 1}}])
            library.warning("said %s", spell(secret))
        try:
            raise ValueError(f"cannot use {secret!r}")
        except ValueError as error:
            context.log.exception("failed", reason=str(error))
            library.exception("failed")
        context.metrics.counter("mag_leaky_total", "Leaks.", labels={"of": secret}).inc()
        context.bus.emit(HealthFailed(name=f"leaky {secret}", error=f"it said {secret}"))
        context.bus.emit(ConfigReloadFailed(error=json.dumps({"text": secret})))
        if number % 20 == 0:
            warnings.warn(f"do not use {secret}", stacklevel=1)
            threading.Thread(target=self._fail, args=(secret,)).start()

    def _fail(self, secret: str) -> None:
        raise OSError(5, f"no {secret}", secret)

    async def health(self) -> HealthReport:
        return HealthReport.of(HealthCheck("leaky", HealthStatus.DEGRADED, " and ".join(EVERYTHING)))

    def announce(self) -> Announcement:
        return Announcement(urls={"leaky": f"http://u:{EVERYTHING[0]}@h/"}, examples=EVERYTHING[:60],
                            notices=[f"see {secret}" for secret in EVERYTHING[60:]])
'''

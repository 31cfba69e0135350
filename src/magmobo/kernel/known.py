"""Every secret that a node has in its hands, so that none of them is written anywhere, whatever stands around it.

One for each node, passed to whoever writes: log, audit log, events, answers, figures. What was learnt stays known after
it was rotated out, because old errors still name it; past `MAX_SECRETS` the oldest are forgotten. Learning costs
nothing; spelling a secret in all ways is left to the first who writes. Invariant: nothing here gives a secret away
again.

A word that a caller may have sent himself is not searched for weak secrets (`public_text`): a guess that comes back
as `***` would tell that it was right.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from magmobo.contracts.secret import HIDDEN, Secret
from magmobo.kernel.needles import MIN_CHARS, Needles

if TYPE_CHECKING:
    from magmobo.kernel.config.loader import Config
    from magmobo.kernel.redact import Redactor

MAX_SECRETS = 2_000
_SPARE_SECRETS = 500  # forgotten together, because it takes a while
_WORD_CHARS = 12
_STRONG_CHARS, _STRONG_VARIETY = 16, 8


class KnownSecrets:
    """What one node knows.

    `names_key` gives the key of the hashes that stand for names of people; it is asked for once, with the first name.
    By default the key is one of this process.
    """

    def __init__(self) -> None:
        self.names_key: Callable[[], bytes] = partial(os.urandom, 32)
        self._secrets: dict[str, None] = {}  # oldest first
        self._needles, self._strong = Needles(), Needles()
        self._unread: list[Any] = []
        self._reading = threading.Lock()
        self.hides_emails = False

    # ------------------------------------------------------------ learning

    def learn(self, config: Config) -> None:
        """Know every `Secret` of a configuration; call it before anybody is told of that configuration."""
        self.hides_emails = config.section("security").redact_emails
        self._unread.append([config.section(name) for name in config.sections])

    def learn_environment(self, environ: Mapping[str, str]) -> None:
        """Know what stands in variables whose name sounds secret, and the passwords in all others."""
        self._unread.append(_Variables(environ))

    def add(self, secret: str) -> None:
        """Know one more, such as one that was read from the vault."""
        self._unread.append(Secret(secret))

    # ------------------------------------------------------------ hiding

    def text(self, text: str) -> str:
        """`text` for the log and for operators: without known secrets and what looks like one; at most 16 Ki
        characters.
        """
        return self._redactor.text(text)

    def value(self, value: Any, name: str = "") -> Any:
        """A copy of `value` for the log, that JSON can hold. `name` is the key it stands under."""
        return self._redactor.value(value, name)

    def public_text(self, text: str) -> str:
        """`text` for whoever asks at a public door: without strong known secrets and passwords in URLs. What else looks
        like a secret may be a word of an application's own.
        """
        from magmobo.kernel.redact import without_passwords

        self._read()
        return without_passwords(self._strong.replaced(text, HIDDEN))

    def hidden(self, text: str) -> str:
        """`text`, of any length, without known secrets; looks do not matter."""
        if self._unread:
            self._read()
        return self._needles.replaced(text, HIDDEN) if len(text) >= MIN_CHARS else text

    def answer(self, encoded: bytes) -> bytes:
        """JSON that means the same without known secrets."""
        text = encoded.decode()
        if "\\" not in text and self.hidden(text) == text:  # what it says is what is written there
            return encoded
        import msgspec

        value = msgspec.json.decode(encoded)
        shown = self._inside(value)
        return encoded if shown == value else msgspec.json.encode(shown)

    def person(self, name: str) -> str:
        """What stands for the name of a person: the same for the same name on this node, and nobody can look it up."""
        import hmac

        digest = hmac.digest(self._key, name.encode(errors="surrogatepass"), "sha256")
        return f"user:{digest[:4].hex()}"

    # ------------------------------------------------------------ inside

    @cached_property
    def _key(self) -> bytes:
        return self.names_key()

    @cached_property
    def _redactor(self) -> Redactor:
        from magmobo.kernel.redact import Redactor

        return Redactor(self.hidden, self.person, lambda: self.hides_emails)

    def _read(self) -> None:
        """Take what was learnt since the last time."""
        with self._reading:
            while self._unread:
                self._take(self._unread[0])
                del self._unread[0]  # not before: until then other threads wait for it

    def _take(self, source: Any) -> None:
        from magmobo.kernel.spellings import secrets_in, telling_parts

        found = source.secrets() if isinstance(source, _Variables) else secrets_in(source)
        for part in (part for secret in found for part in telling_parts(secret)):
            if _is_a_word(part):
                continue
            if part in self._secrets:
                del self._secrets[part]  # so that it is the newest
            else:
                _add(part, self._needles, self._strong)
            self._secrets[part] = None
        if len(self._secrets) > MAX_SECRETS + _SPARE_SECRETS:
            self._forget_the_oldest()

    def _forget_the_oldest(self) -> None:
        self._secrets = dict.fromkeys(list(self._secrets)[-MAX_SECRETS:])
        needles, strong = Needles(), Needles()
        for secret in self._secrets:
            _add(secret, needles, strong)
        self._needles, self._strong = needles, strong

    def _inside(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.hidden(value)
        if isinstance(value, dict):
            return {self.hidden(key): self._inside(item) for key, item in value.items()}
        return [self._inside(item) for item in value] if isinstance(value, list) else value


class _Variables:
    """Of an environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)

    def secrets(self) -> Iterable[str]:
        from magmobo.kernel.redact import sounds_secret
        from magmobo.kernel.spellings import passwords_in

        for variable, value in self._environ.items():
            if sounds_secret(variable) and not variable.endswith(("_FILE", "_PATH", "_DIR")):
                yield value
            else:
                yield from passwords_in(value)


def _add(secret: str, needles: Needles, strong: Needles) -> None:
    from magmobo.kernel.spellings import spellings

    for spelling in spellings(secret):
        needles.add(spelling)
        if _is_strong(secret):
            strong.add(spelling)


def _is_a_word(secret: str) -> bool:
    """Whether hiding it would hide ordinary words and numbers: `postgres`, `running`, `100000`."""
    return len(secret) < _WORD_CHARS and (secret.isalpha() or secret.isdigit())


def _is_strong(secret: str) -> bool:
    """Whether nobody finds it by asking for one guess after the other."""
    return len(secret) >= _STRONG_CHARS and len(set(secret)) >= _STRONG_VARIETY

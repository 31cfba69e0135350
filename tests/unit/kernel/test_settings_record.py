"""What the audit log holds of `config:set`: the values that operators set, and no secret, also where it is refused."""

from __future__ import annotations

import json

import pytest
from tests.unit.kernel.command_fakes import ADMIN
from tests.unit.kernel.reloads import Witness, reloading

from magmobo.contracts.errors import ConfigError

GIVEN = "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("admin.token_sha256", GIVEN),
        ("vault.key", GIVEN),
        ("vault.passphrase", f"plain:{GIVEN}"),
        ("cache.redis_url", f"redis://{GIVEN}@h"),
        ("vault.passphrasse", GIVEN),
        ("nobody.knows", GIVEN),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_secret_that_somebody_gives_by_its_value_is_not_on_record(key: str, value: str, dry_run: bool) -> None:
    async with reloading(Witness) as scene:
        order = json.dumps({"key": key, "value": value}).encode()
        with pytest.raises(ConfigError) as refused:
            await scene.kernel.services.commands.run("config:set", order, actor=ADMIN, dry_run=dry_run)
        assert GIVEN not in str(refused.value)
        intent = (await scene.records("config.patch"))[0]
        assert intent["params"] == {"key": key, "value": "***", "ttl_s": None}
        written = await scene.kernel.services.audit.read(after_seq=0, limit=1_000)
        assert GIVEN not in "".join(str(record.payload) for record in written)


@pytest.mark.parametrize(("key", "value"), [("health.interval_s", "5"), ("admin.token_sha256", "vault:token")])
async def test_what_is_no_secret_is_on_record_as_it_was_set(key: str, value: str) -> None:
    async with reloading(Witness, secrets={"token": "0" * 64}) as scene:
        order = json.dumps({"key": key, "value": value}).encode()
        await scene.kernel.services.commands.run("config:set", order, actor=ADMIN)
        assert (await scene.records("config.patch"))[0]["params"]["value"] == value

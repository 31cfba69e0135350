"""Run by test_no_room.py: writes until no file may grow, is refused, gets room again and goes on."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from tests.integration.audit.support import OPERATOR, Place

from magmobo.contracts.errors import MagError
from magmobo.kernel.audit.log import AuditLog

LIMIT_BYTES = 150_000  # room for the state store, which stays far smaller


async def attempt(log: AuditLog, size: int) -> bool:
    try:
        record = await log.record("config.patch", actor=OPERATOR, payload={"text": "x" * size})
    except MagError as error:
        print(json.dumps({"what": "refused", "code": error.code}))
        return False
    print(json.dumps({"what": "written", "id": record.id}))
    return True


async def main() -> None:
    place = Place(Path(sys.argv[1]))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with place.running() as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
        while await attempt(log, 9_000):
            pass
        for _ in range(4):
            await attempt(log, 9_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        for _ in range(3):
            await attempt(log, 9_000)


if __name__ == "__main__":
    asyncio.run(main())

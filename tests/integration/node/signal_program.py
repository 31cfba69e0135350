"""A program with the signal handlers of a node: says each thing it is asked, into the file named by the argument."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from magmobo.node.signals import stopping_on_signals


async def main(said: Path) -> None:
    stop = asyncio.Event()

    def say(word: str) -> None:
        with said.open("a") as file:
            file.write(f"{word}\n")

    with stopping_on_signals(stop.set, lambda: say("reload")):
        say("ready")
        await stop.wait()
        say("stop")


asyncio.run(main(Path(sys.argv[1])))

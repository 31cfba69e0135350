"""Follow one channel with pysher, a stock Pusher client: `subscribe.py [ws://host:port/app/<key>] <channel>`.

Without an address it asks `mag status` for the node that runs here. For a private channel give the app's secret in
MAG_APP_SECRET; a real client asks its own server to sign instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pysher


def address_of_the_node_here() -> str:
    """What `mag status` calls realtime."""
    mag = [sys.executable, "-m", "magmobo.cli.main", "status", "--json"]
    told = subprocess.run(mag, stdout=subprocess.PIPE, check=False).stdout
    if not told:
        sys.exit(1)  # mag has said why
    return str(json.loads(told)["urls"]["realtime"])


if not 2 <= len(sys.argv) <= 3:
    sys.exit(__doc__)
channel_name = sys.argv[-1]
url = urlsplit(sys.argv[1] if len(sys.argv) == 3 else address_of_the_node_here())
secret = os.environ.get("MAG_APP_SECRET", "")
if channel_name.startswith("private-") and not secret:
    sys.exit(f"{channel_name} is private: give the app's secret in MAG_APP_SECRET")
client = pysher.Pusher(
    key=url.path.removeprefix("/app/"),
    secret=secret,
    custom_host=url.hostname,
    port=url.port,
    secure=url.scheme == "wss",
    auto_sub=True,
    reconnect_interval=1,
)


def follow(_: str) -> None:
    """Subscribe once connected; pysher subscribes again by itself when it reconnects."""
    if channel_name in client.channels:
        return
    channel = client.subscribe(channel_name)
    channel.bind("pusher_internal:subscription_succeeded", lambda _: print("subscribed to", channel_name, flush=True))
    channel.bind("pusher:subscription_error", lambda error: print("refused:", error["error"], flush=True))
    for event in ("insert", "update", "delete", "truncate"):
        channel.bind(event, lambda data, event=event: print(event, data, flush=True))


client.connection.bind("pusher:connection_established", follow)
client.connection.bind("pusher:error", lambda error: print("error:", error, flush=True))
client.connect()
try:
    threading.Event().wait()
except KeyboardInterrupt:
    client.disconnect()

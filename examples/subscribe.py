"""Follow one channel with pysher, a stock Pusher client: `subscribe.py ws://127.0.0.1:8787/app/<key> <channel>`.

For a private channel give the app's secret in MAG_APP_SECRET; a real client asks its own server to sign instead.
"""

from __future__ import annotations

import os
import sys
import threading
from urllib.parse import urlsplit

import pysher

url, channel_name = urlsplit(sys.argv[1]), sys.argv[2]
client = pysher.Pusher(
    key=url.path.removeprefix("/app/"),
    secret=os.environ.get("MAG_APP_SECRET", ""),
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

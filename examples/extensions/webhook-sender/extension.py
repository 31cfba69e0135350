"""Webhook sender: posts changes of tables to an address of yours, signed, until they are taken.

The headers are those of Standard Webhooks 1.0, so receivers can check them with any library for it.
"""

import base64
import hashlib
import hmac
import json
import time

from magx import Event, Extension

ext = Extension()


class NotTaken(Exception):
    """The receiver did not take it; the node delivers the event again in 1, 5 and 25 seconds, then sets it aside."""


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over id, time and body, joined by dots."""
    signed = b".".join([event_id.encode(), str(timestamp).encode(), body])
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


@ext.on("changes")
async def post(event: Event) -> None:
    """Raising is how a handler says that it could not take an event."""
    change = {key: event.data.get(key) for key in ("schema", "table", "op", "record", "old_record", "commit_time")}
    body = json.dumps({"type": "database.change", "data": change}).encode()
    timestamp = int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": event.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(ext.config["secret"], event.id, timestamp, body),
    }
    answer = await ext.http.post(ext.config["url"], headers=headers, body=body, timeout_s=10)
    ext.metrics.inc("posts_total")
    if answer.status == 410:  # gone: who answers so wants no more of it
        await ext.events.subscribe("changes", active=False)
        ext.log.warning("the receiver is gone; the subscription is paused", url=ext.config["url"])
    elif not answer.ok:
        raise NotTaken(f"{ext.config['url']} answered {answer.status}")


@ext.health
def health() -> dict[str, bool]:
    """Without a secret nothing can be sent."""
    return {"secret is set": bool(ext.config.get("secret"))}

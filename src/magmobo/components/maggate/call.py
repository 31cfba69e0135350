"""One request on its way through the gateway. Facts only."""

from __future__ import annotations

from msgspec import Struct

from magmobo.components.maggate.request import Headers
from magmobo.contracts.planes import Identity


class Call(Struct):
    """One request, with what was found out about it on the way. `table` is empty for the root, and as long as the path
    was not read.
    """

    method: str
    raw_path: bytes
    query_string: bytes
    headers: Headers
    body: bytes = b""
    identity: Identity = Identity("")
    anonymous: bool = True
    singular: bool = False
    table: str = ""
    request_id: bytes = b""

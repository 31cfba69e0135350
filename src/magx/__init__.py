"""The SDK an extension imports. It depends on msgspec alone and never on `magmobo`.

Boundary: an extension runs in another process, so nothing here may hold a connection, a secret or a kernel object.
"""

from magx.extension import Extension
from magx.model import ApiError, Event, HookCall, HookDenied, HttpResponse, Job, NoNode, RateLimited, Request, Response

__all__ = [
    "ApiError",
    "Event",
    "Extension",
    "HookCall",
    "HookDenied",
    "HttpResponse",
    "Job",
    "NoNode",
    "RateLimited",
    "Request",
    "Response",
]

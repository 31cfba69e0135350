"""What is asked: errors of the request itself (MAG-GATE-020 to 039)."""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.components.maggate.errors.base import GateError


class InvalidQuery(GateError):
    """The query string does not follow the grammar."""

    code = "MAG-GATE-020"
    title = "The query string could not be read"
    remedy = "docs/rest.md lists the operators and the grammar; quote names and values that hold , . : ( ) or quotes."

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where, self.reason = where, reason

    def __str__(self) -> str:
        return f"failed to parse {self.where}: {self.reason}"


class TooMuch(GateError):
    """A request exceeds one of the gateway's limits."""

    code = "MAG-GATE-021"
    title = "The request exceeds a limit"
    remedy = "Split the request; docs/rest.md lists the limits."

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(what, limit)
        self.what, self.limit = what, limit

    def __str__(self) -> str:
        return f"too many {self.what}: at most {self.limit}"


class InvalidBody(GateError):
    """The body is not the JSON this request needs."""

    code = "MAG-GATE-022"
    rest_code = "PGRST102"
    title = "The body could not be read"
    remedy = "Send a JSON object, or for POST an array of objects that all have the same keys."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class BodyTooLarge(GateError):
    """The body is larger than `maggate.max_body_bytes`."""

    code = "MAG-GATE-023"
    http_status = 413
    rest_code = "PGRST102"
    title = "The body is too large"
    remedy = "Send it in several requests, or raise maggate.max_body_bytes."

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the body is larger than {self.limit_bytes} bytes"


class UnsupportedMediaType(GateError):
    """The body's Content-Type is not JSON."""

    code = "MAG-GATE-024"
    http_status = 415
    rest_code = "PGRST102"
    title = "The body's type is not supported"
    remedy = "Send JSON with `Content-Type: application/json`."

    def __init__(self, media_type: str) -> None:
        super().__init__(media_type)
        self.media_type = media_type

    def __str__(self) -> str:
        return f"Content-Type not acceptable: {self.media_type}"


class NotAcceptable(GateError):
    """No media type of the Accept header can be produced."""

    code = "MAG-GATE-025"
    http_status = 406
    rest_code = "PGRST107"
    title = "No requested media type is available"
    remedy = "Accept application/json or application/vnd.pgrst.object+json."

    def __init__(self, accept: str) -> None:
        super().__init__(accept)
        self.accept = accept

    def __str__(self) -> str:
        return f"None of these media types are available: {self.accept}"


class SchemaNotExposed(GateError):
    """Accept-Profile or Content-Profile names a schema that is not exposed."""

    code = "MAG-GATE-026"
    http_status = 406
    rest_code = "PGRST106"
    title = "The schema is not exposed"
    remedy = "Name one of the schemas in maggate.schemas."

    def __init__(self, schema: str, exposed: Sequence[str]) -> None:
        super().__init__(schema, exposed)
        self.schema, self.exposed = schema, exposed

    def __str__(self) -> str:
        return f"Invalid schema: {self.schema}"

    @property
    def details(self) -> str:
        return f"Only the following schemas are exposed: {', '.join(self.exposed)}"


class InvalidPreference(GateError):
    """`Prefer: handling=strict` was sent together with a preference that is not honoured."""

    code = "MAG-GATE-027"
    rest_code = "PGRST122"
    title = "A preference cannot be honoured"
    remedy = "Leave the named preferences out, or send handling=lenient."

    def __init__(self, preferences: Sequence[str]) -> None:
        super().__init__(preferences)
        self.preferences = preferences

    def __str__(self) -> str:
        return "Invalid preferences given with handling=strict"

    @property
    def details(self) -> str:
        return f"Invalid preferences: {', '.join(self.preferences)}"


class RangeNotSatisfiable(GateError):
    """The requested rows lie beyond the end, or the range is empty or reversed."""

    code = "MAG-GATE-028"
    http_status = 416
    rest_code = "PGRST103"
    title = "The range cannot be satisfied"
    remedy = "Ask for a smaller offset; `Content-Range` names the number of rows."

    def __init__(self, reason: str, total: int | None = None) -> None:
        super().__init__(reason, total)
        self.reason, self.total = reason, total

    def __str__(self) -> str:
        return "Requested range not satisfiable"

    @property
    def details(self) -> str:
        return self.reason


class MethodNotAllowed(GateError):
    """The method is not one of those this resource has."""

    code = "MAG-GATE-029"
    http_status = 405
    rest_code = "PGRST117"
    title = "The method is not supported"
    remedy = "The Allow header lists the methods of this resource."

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(method, allowed)
        self.method, self.allowed = method, allowed

    def __str__(self) -> str:
        return f"Unsupported HTTP method: {self.method}"


class InvalidPath(GateError):
    """The path names no resource of the gateway."""

    code = "MAG-GATE-030"
    http_status = 404
    rest_code = "PGRST125"
    title = "There is nothing at this path"
    remedy = "Tables are served as /rest/v1/<table>; /rest/v1/ lists those the caller may use."

    def __str__(self) -> str:
        return "Invalid path specified in request URL"


class UnfilteredWrite(GateError):
    """PATCH or DELETE without any filter would change every row of the table."""

    code = "MAG-GATE-031"
    rest_code = "21000"
    title = "The write has no filter"
    remedy = "Add a filter; to mean every row, say so with one that is always true, such as <key>=not.is.null."

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"{'DELETE' if self.method == 'DELETE' else 'UPDATE'} requires a WHERE clause"


class NotSingular(GateError):
    """One object was asked for, but the result is not exactly one row. A write was rolled back."""

    code = "MAG-GATE-032"
    http_status = 406
    rest_code = "PGRST116"
    title = "The result is not a single object"
    remedy = "Narrow the filter until it matches one row, or accept application/json."

    def __init__(self, row_count: int) -> None:
        super().__init__(row_count)
        self.row_count = row_count

    def __str__(self) -> str:
        return "Cannot coerce the result to a single JSON object"

    @property
    def details(self) -> str:
        return f"The result contains {self.row_count} rows"


class TooManyAffected(GateError):
    """A write touched more rows than `Prefer: max-affected` allows, and was rolled back."""

    code = "MAG-GATE-033"
    rest_code = "PGRST124"
    title = "The write would change too many rows"
    remedy = "Narrow the filter, or raise max-affected."

    def __init__(self, row_count: int) -> None:
        super().__init__(row_count)
        self.row_count = row_count

    def __str__(self) -> str:
        return "Query result exceeds max-affected preference constraint"

    @property
    def details(self) -> str:
        return f"The query affects {self.row_count} rows"


class UrlTooLong(GateError):
    """The query string is longer than the gateway reads."""

    code = "MAG-GATE-034"
    http_status = 414
    title = "The URL is too long"
    remedy = "Use a shorter filter, or several requests."

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the query string is longer than {self.limit_bytes} bytes"


class RequestRateLimited(GateError):
    """An extension that counts requests has had enough of this caller's for now; `retry_s`: for so long, 0 where it
    did not say.
    """

    code = "MAG-GATE-035"
    http_status = 429
    retryable = True
    rest_code = "53400"
    title = "Too many requests"
    remedy = "Wait as long as Retry-After says, and ask less often."

    def __init__(self, extension: str, reason: str, retry_s: float = 0.0) -> None:
        super().__init__(extension, reason, retry_s)
        self.extension, self.reason, self.retry_s = extension, reason, retry_s

    def __str__(self) -> str:
        return f"{self.extension} refused it: {self.reason}"

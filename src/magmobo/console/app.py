"""The console's routes. Reading needs the session cookie; changing anything needs its CSRF token as well.

Boundary: HTTP only; what is shown comes from `Operators` and `Realtime`, and what is changed goes through the command
bus, which decides and records it. Every answer carries the security headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Raw, Struct
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from magmobo.console.assets import Asset, load_assets
from magmobo.console.errors import (
    BadRequest,
    ChannelRefused,
    ForgeryRefused,
    SessionNeeded,
    TooManyAttempts,
    WrongToken,
)
from magmobo.console.orders import Order
from magmobo.console.sessions import LIFETIME_S, LoginThrottle, Session, Sessions
from magmobo.contracts.capabilities import Actor, Role
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.planes import AsgiApp, Operators, Realtime

PREFIX = "/console/"
MAX_BODY_BYTES = 4_096
VERSIONS_SHOWN = 50
EXTENSIONS_SHOWN = 100
ORDER_TIMEOUT_S = 60.0  # an approval may run the migrations of an upgrade
ROLLBACK_TIMEOUT_S = 60.0  # components that are made anew with other settings take their time
HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
T = TypeVar("T")


class Login(Struct, forbid_unknown_fields=True):
    """Body of POST login."""

    token: Annotated[str, Meta(max_length=1_024)]


class ChannelLogin(Struct, forbid_unknown_fields=True):
    """Body of POST auth."""

    socket_id: Annotated[str, Meta(pattern=r"\A[0-9]{1,20}\.[0-9]{1,20}\Z")]
    channel_name: Annotated[str, Meta(max_length=400)]


class Rollback(Struct, forbid_unknown_fields=True):
    """Body of POST api/rollback. `dry_run`: only say what it would change."""

    version: Annotated[int, Meta(ge=1, lt=2**53)]
    dry_run: bool


class _One(Struct):
    id: str


class _Listed(Struct):
    extensions: list[_One]


class ConsoleApp:
    """Answers for one console.

    Args:
        cookie_name: differs between nodes of one host, which share cookies.
        hide: takes secrets of the node out of the words of errors.
    """

    def __init__(
        self,
        *,
        operators: Operators,
        realtime: Realtime | None,
        sessions: Sessions,
        throttle: LoginThrottle,
        cookie_name: str,
        hide: Callable[[str], str],
    ) -> None:
        self._operators, self._realtime = operators, realtime
        self._sessions, self._throttle, self._cookie_name, self._hide = sessions, throttle, cookie_name, hide
        self._assets: Mapping[str, Asset] = load_assets()

    def asgi(self) -> AsgiApp:
        """The bare ASGI application."""
        routes = [
            Route("/", self._redirect),
            Route(PREFIX[:-1], self._redirect),
            Route(PREFIX, self._page),
            Route(f"{PREFIX}static/{{path:path}}", self._static),
            Route(f"{PREFIX}login", self._login, methods=["POST"]),
            Route(f"{PREFIX}logout", self._logout, methods=["POST"]),
            Route(f"{PREFIX}auth", self._authorise_channel, methods=["POST"]),
            Route(f"{PREFIX}api/session", self._show_session),
            Route(f"{PREFIX}api/status", self._show_status),
            Route(f"{PREFIX}api/settings", self._show_settings),
            Route(f"{PREFIX}api/rollback", self._roll_back, methods=["POST"]),
            Route(f"{PREFIX}api/extensions", self._show_extensions, methods=["GET"]),
            Route(f"{PREFIX}api/extensions", self._order, methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {MagError: self._problem, HTTPException: _http_problem}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False  # it would build the address from the Host header
        return _secured(app)

    # ------------------------------------------------------------ open to everybody

    async def _redirect(self, _request: Request) -> Response:
        return RedirectResponse(PREFIX, 307)  # temporary: another node may serve other things here

    async def _page(self, request: Request) -> Response:
        return self._serve(request, "index.html")

    async def _static(self, request: Request) -> Response:
        return self._serve(request, request.path_params["path"])

    def _serve(self, request: Request, path: str) -> Response:
        asset = self._assets.get(path)
        if asset is None:
            raise HTTPException(404)
        headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == asset.etag:
            return Response(status_code=304, headers=headers)
        return Response(asset.body, media_type=asset.content_type, headers=headers)

    async def _login(self, request: Request) -> Response:
        _refuse_other_sites(request)
        address = request.client.host if request.client else ""
        if wait_s := self._throttle.wait_s(address):
            raise TooManyAttempts(wait_s)
        token = (await _body(request, Login)).token
        if not self._operators.admin_token_matches(token):
            self._throttle.failed(address)
            raise WrongToken
        session_id, session = self._sessions.open()
        response = self._session_answer(session)
        self._set_cookie(request, response, session_id, max_age_s=int(LIFETIME_S))
        return response

    # ------------------------------------------------------------ for a session

    async def _show_session(self, request: Request) -> Response:
        return self._session_answer(self._session(request))

    async def _show_status(self, request: Request) -> Response:
        self._session(request)
        node = await self._operators.run("kernel:status", actor=_actor(request))
        return _json({"node": Raw(node), "realtime": self._realtime_view()})

    async def _show_settings(self, request: Request) -> Response:
        """Every setting and the versions; nothing (204) when `unless` names what they are still."""
        self._session(request)
        actor, limit = _actor(request), msgspec.json.encode({"limit": VERSIONS_SHOWN})
        tree = await self._operators.run("config:show", actor=actor)
        history = await self._operators.run("config:history", limit, actor=actor)
        mark = sha256(tree + b"\n" + history).hexdigest()[:32]
        if request.query_params.get("unless") == mark:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        return _json({"mark": mark, "tree": Raw(tree), "history": Raw(history)})

    async def _roll_back(self, request: Request) -> Response:
        asked = await self._change(request, Rollback)
        outcome = await self._operators.run(
            "config:rollback",
            msgspec.json.encode({"version": asked.version}),
            actor=_actor(request),
            timeout_s=ROLLBACK_TIMEOUT_S,
            dry_run=asked.dry_run,
        )
        return _json(Raw(outcome))

    async def _show_extensions(self, request: Request) -> Response:
        """Every extension in detail; nothing (204) when `unless` names what they are still."""
        self._session(request)
        actor = _actor(request)
        page = await self._operators.run("extension:list", actor=actor)
        listed = msgspec.json.decode(page, type=_Listed).extensions[:EXTENSIONS_SHOWN]
        asked = [msgspec.json.encode({"id": one.id}) for one in listed]
        details = [await self._operators.run("extension:show", fields, actor=actor) for fields in asked]
        mark = sha256(b"\n".join([page, *details])).hexdigest()[:32]
        if request.query_params.get("unless") == mark:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        return _json({"mark": mark, "page": Raw(page), "details": [Raw(detail) for detail in details]})

    async def _order(self, request: Request) -> Response:
        order = await self._change(request, Order)
        if not order.is_sound:
            raise BadRequest("an order names one extension, but for those about all of them")
        name, fields = order.command()
        answer = await self._operators.run(
            name,
            msgspec.json.encode(fields),
            actor=_actor(request),
            timeout_s=ORDER_TIMEOUT_S,
            dry_run=order.dry_run,
        )
        return _json(Raw(answer))

    async def _logout(self, request: Request) -> Response:
        self._session(request, changes=True)
        self._sessions.end(self._session_id(request))
        response = Response(status_code=204)
        self._set_cookie(request, response, "", max_age_s=0)
        return response

    async def _authorise_channel(self, request: Request) -> Response:
        asked = await self._change(request, ChannelLogin)
        if self._realtime is None:
            raise Unavailable("realtime")
        if asked.channel_name not in self._realtime.table_channels():
            raise ChannelRefused
        return _json({"auth": self._realtime.authorise(asked.socket_id, asked.channel_name)})

    def _session(self, request: Request, *, changes: bool = False) -> Session:
        if changes:
            _refuse_other_sites(request)
        session = self._sessions.find(self._session_id(request))
        if session is None:
            raise SessionNeeded
        if changes and not session.csrf_matches(request.headers.get("x-csrf-token", "")):
            raise ForgeryRefused
        return session

    async def _change(self, request: Request, shape: type[T]) -> T:
        """The body of a request that changes something, from somebody whose session still counts when it is there."""
        self._session(request, changes=True)
        asked = await _body(request, shape)
        self._session(request, changes=True)
        return asked

    def _session_id(self, request: Request) -> str:
        return request.cookies.get(self._cookie_name, "")

    def _session_answer(self, session: Session) -> Response:
        return _json({"csrf_token": session.csrf_token})

    def _realtime_view(self) -> dict[str, object]:
        """What the ticker needs, or why there is none."""
        if self._realtime is None:
            return {"available": False, "reason": "This node runs no realtime component."}
        try:
            app_key, channels = self._realtime.app_key, list(self._realtime.table_channels())
        except MagError as error:
            return {"available": False, "reason": self._hide(f"{error} [{error.code}]")}
        return {"available": True, "app_key": app_key, "channels": channels}

    async def _problem(self, _request: Request, error: MagError) -> Response:
        content = {
            "type": f"urn:mag:{error.code}", "title": self._hide(str(error)), "status": error.http_status,
            "code": error.code, "remedy": error.next_step(),
        }  # fmt: skip
        response = _json(content, error.http_status)
        response.headers["Content-Type"] = "application/problem+json"
        if isinstance(error, TooManyAttempts):
            response.headers["Retry-After"] = str(int(error.retry_after_s) + 1)
        return response

    def _set_cookie(self, request: Request, response: Response, value: str, *, max_age_s: int) -> None:
        response.set_cookie(
            self._cookie_name, value, max_age=max_age_s, path=PREFIX, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip


def _actor(request: Request) -> Actor:
    """Whoever has a session showed the admin token."""
    return Actor(name="console", role=Role.ADMIN, via="console", address=request.client.host if request.client else "")


def _refuse_other_sites(request: Request) -> None:
    """Browsers say where a request comes from; one that another site caused is refused before anything else."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        if site not in {"same-origin", "none"}:
            raise ForgeryRefused
    elif origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ForgeryRefused


async def _body(request: Request, shape: type[T]) -> T:
    """The JSON body, checked. Raises: BadRequest."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("the body must be application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(f"the body is larger than {MAX_BODY_BYTES:,} bytes")
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        # The text of a decoding error may quote the body, and the body may be a token.
        raise BadRequest(f"the body is not a valid {shape.__name__}") from error


def _json(content: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(content), status, media_type="application/json", headers={"Cache-Control": "no-store"}
    )


async def _http_problem(_request: Request, error: HTTPException) -> Response:
    response = _json({"title": error.detail, "status": error.status_code}, error.status_code)
    response.headers["Content-Type"] = "application/problem+json"
    response.headers.update(error.headers or {})
    return response


def _secured(app: ASGIApp) -> AsgiApp:
    """`app` with the security headers on every answer."""

    async def secured(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "Content-Security-Policy": _content_policy(scope)})
            await send(message)

        await app(scope, receive, send_with_headers)

    return secured


def _content_policy(scope: Scope) -> str:
    """Nothing from elsewhere. Older browsers do not count a WebSocket to this host as 'self', so it is named."""
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    sockets = f" ws://{host} wss://{host}" if HOST.fullmatch(host) else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{sockets};"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )

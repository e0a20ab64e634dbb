"""Who may see and drive: this machine's own browsers, and whoever has the token.

A page of some other site, open in the same browser, can send requests to this machine's addresses. So a
request has to name an address of this server as its host (against rebound names), and a websocket has to come
from a page of this server. Where other machines can reach it, every browser needs the token: once in the
address, then in a cookie.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from scd_world.play.config import PlayConfig, is_loopback

COOKIE = "scd_play"
POLICY_VIOLATION = 1008  # websocket's code
LOCKED = (
    "This page asks for a token: open the address that scd-play printed where it was started, with its "
    "?token=… at the end.\n"
)
HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob: data:; "
    b"connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}


def make_token(config: PlayConfig) -> str | None:
    """Gives the token that browsers need; None where only this machine can reach the page."""
    if config.token is not None or config.is_local:
        return config.token
    return secrets.token_urlsafe(24)


class Access:
    """Lets through what may come in; everything else is answered here.

    token: what a browser has to know; None: nothing.
    any_host: whether the server answers to any name or address, as one that others reach does: it has the
    token instead.
    """

    def __init__(self, app: ASGIApp, token: str | None, any_host: bool) -> None:
        self.app, self.token, self.any_host = app, token, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        reason = self.refusal(request)
        if scope["type"] == "websocket":
            if reason is None:
                await self.app(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).close(POLICY_VIOLATION, reason[:120])
            return
        if reason is not None:
            await PlainTextResponse(reason, status_code=403)(scope, receive, send)
        elif "token" in request.query_params and self.token is not None:
            response = RedirectResponse(request.url.path, status_code=303)  # the token leaves the address bar
            response.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, with_headers(send))

    def refusal(self, request: HTTPConnection) -> str | None:
        """Says why a request is not let through; None: it is."""
        host = request.headers.get("host", "")
        if not self.any_host and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return f"this page answers on this machine alone, not as {host!r}; see scd-play's host="
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"a page of {origin} may not drive here"
        if self.token is None:
            return None
        given = request.query_params.get("token"), request.cookies.get(COOKIE)
        return None if any(equal(one, self.token) for one in given) else LOCKED


def equal(given: str | None, token: str) -> bool:
    """Compares in a time that tells nothing about the token."""
    return given is not None and secrets.compare_digest(given.encode(), token.encode())


def with_headers(send: Send) -> Send:
    """Sends what goes out with the headers that keep other sites and scripts out, unless it has its own."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = dict(message["headers"])
            missing = [item for item in HEADERS.items() if item[0] not in present]
            message = {**message, "headers": [*message["headers"], *missing]}
        await send(message)

    return sending

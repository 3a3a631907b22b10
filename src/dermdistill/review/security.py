"""What every request passes before the application sees it, and the headers that every response carries."""

import math
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dermdistill.review.limits import Buckets, Limit, client_key

FORM_TYPE: Final = "application/x-www-form-urlencoded"
MOST_BODY_BYTES: Final = 128 * 1024
METHODS: Final = ("GET", "HEAD", "POST")
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "x-robots-tag": "noindex, nofollow",
}
ONE_YEAR: Final = "max-age=31536000"


class Guard:
    """Refuses other hosts, too many requests, large bodies and everything that is not a plain form.

    Args:
        app: what is guarded.
        hosts: values of the Host header that are ours, small letters, with their port where it is not the usual one.
        limit: of all requests of one client.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], limit: Limit) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._clients = Buckets(limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        guarded = _with_headers(send, secure=scope["scheme"] == "https")
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        body = await _body_of(receive) if scope["method"] == "POST" else b""
        if body is None:
            await PlainTextResponse("The form is too large.\n", 413)(scope, receive, guarded)
            return
        await self._app(scope, _given_again(body, receive), guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("This server does not answer to that name.\n", 400)
        if scope["method"] not in METHODS:
            return PlainTextResponse("Not allowed.\n", 405, {"allow": ", ".join(METHODS)})
        wait = self._clients.take(client_key(scope["client"][0] if scope["client"] else ""))
        if wait:
            return PlainTextResponse("Too many requests.\n", 429, {"retry-after": str(math.ceil(wait))})
        return _form_refusal(headers) if scope["method"] == "POST" else None


def _form_refusal(headers: Headers) -> PlainTextResponse | None:
    """A form, not too large, and not sent by a page of another site, as far as the browser tells."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return PlainTextResponse("Forms of other sites are refused.\n", 403)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        return PlainTextResponse("Only plain forms are taken, no files.\n", 415)
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length) > MOST_BODY_BYTES:
        return PlainTextResponse("The form is too large.\n", 413)
    return None


async def _body_of(receive: Receive) -> bytes | None:
    """The body, whatever length its header claims or leaves out; None where it is too large."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > MOST_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _given_again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(send: Send, *, secure: bool) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
            if secure:
                headers["strict-transport-security"] = ONE_YEAR
        await send(message)

    return with_headers

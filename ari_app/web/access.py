"""Who may come in: the bearer token, and the console's sessions. Shell.

A program sends the token with each request (RFC 6750). A browser sends it once and gets a cookie that scripts can't
read and that other sites' pages don't send; a request that changes something must also say that it is our page's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from ari_app.errors import SetupError

logger = logging.getLogger(__name__)

COOKIE = "ari_app_session"
SESSION_S = 12 * 3600
MAX_SESSIONS = 100
WRONG_TOKEN_S = 1.0
"""Every wrong token costs so long, one after the other: nobody guesses 256 bits."""
BODY_S = 10.0
"""For the whole body of a request, which fits into some packets."""
PROBES = frozenset(("/live", "/ready"))
OPEN_PATHS = PROBES | {"/login", "/console.css", "/login.js", "/favicon.svg"}
HEADERS = {
    "Server": "ari_app",  # and not the versions of what it runs on
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def token_of(configured: str, state_dir: Path) -> tuple[str, Path | None]:
    """The token, and the file that holds it when it is not the configured one; made on first use.

    Raises:
        SetupError: the file can't be read or written.
    """
    if configured:
        return configured, None
    path = state_dir / "api_token"
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            token = path.read_text(encoding="utf-8").strip()
        else:
            token = secrets.token_urlsafe(32)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(token + "\n")
    except OSError as error:
        raise SetupError(f"cannot keep the API token in {path}: {error.strerror}") from error
    if len(token) < 16:
        raise SetupError(f"{path} holds no token: delete it, and a new one is made.")
    return token, path


async def read_body(request: web.Request) -> bytes:
    """The body of a request, which does not come for ever.

    Raises:
        HTTPRequestTimeout: it does.
    """
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


async def _carried_out(handler: Handler, request: web.Request) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as refusal:  # no such path, or too long a body
        return web.json_response({"error": refusal.reason}, status=refusal.status)
    except ConnectionError:
        raise
    except Exception:  # a fault of ours: it is logged, and not told to who may have caused it
        logger.exception("%s %s failed", request.method, request.path)
        return web.json_response({"error": "internal error"}, status=500)


class Session:
    """A browser that is logged in, until it logs out, is pushed out by newer ones, or for too long."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.name = f"session {secrets.token_hex(3)}"
        """For the log."""
        self._over = asyncio.Event()

    @property
    def lasts(self) -> bool:
        """Its requests are welcome."""
        return not self._over.is_set() and time.monotonic() < self.until

    def end(self) -> None:
        """Nothing of it is welcome any more."""
        self._over.set()

    async def ended(self) -> None:
        """Wait until it is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self.until - time.monotonic(), 0)):
                await self._over.wait()


SESSION = web.RequestKey("session", Session)


def session_of(request: web.Request) -> Session | None:
    """Of a request that was let in; None for one that brought the token."""
    return request.get(SESSION)


def who(request: web.Request) -> str:
    """For the log."""
    session = session_of(request)
    return f"{session.name if session else 'a program with the token'} at {request.remote}"


class Access:
    """Lets in who knows the token.

    Args:
        token: the secret.
        names: of this host, beside addresses, `localhost` and names without a dot. A page of any other name is a
            stranger's, which made its name lead here (DNS rebinding).
    """

    def __init__(self, token: str, names: Sequence[str] = ()) -> None:
        self._token = token.encode()
        self._names = frozenset(name.lower() for name in names)
        self._sessions: dict[str, Session] = {}
        """By cookie."""
        self._wrong = asyncio.Lock()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Guards every path but the open ones, and sets the headers of all answers."""
        response = await _carried_out(lambda request: self._admitted(request, handler), request)
        if not response.prepared:
            response.headers.update({k: v for k, v in HEADERS.items() if k not in response.headers})
        return response

    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in PROBES and not self._is_called_by_name(request):
            return web.json_response(
                {"error": "this host is not known by that name: add the name to WEB_NAMES"}, status=421
            )
        if request.path in OPEN_PATHS or await self._is_welcome(request):
            return await handler(request)
        if "text/html" in request.headers.get("Accept", ""):
            return web.Response(status=303, headers={"Location": "/login"})
        return web.json_response(
            {"error": "a valid token is needed: Authorization: Bearer TOKEN"},
            status=401,
            headers={"WWW-Authenticate": 'Bearer realm="ari_app"'},
        )

    def _is_called_by_name(self, request: web.Request) -> bool:
        """A program that sends a token is no browser that was led here by a page."""
        if "Authorization" in request.headers:
            return True
        name = re.sub(r":\d*$", "", request.host).strip("[]").rstrip(".").lower()
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return "." not in name or name.endswith(".localhost") or name in self._names

    async def _is_welcome(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._is_token(given.strip())
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        if session is None or not session.lasts:
            return False
        request[SESSION] = session
        return request.method in ("GET", "HEAD") or request.headers.get("X-Requested-With") == "console"

    async def _is_token(self, given: str) -> bool:
        # Whatever was given, also half a character, which no encoding has.
        if hmac.compare_digest(given.encode(errors="surrogatepass"), self._token):
            return True
        async with self._wrong:
            await asyncio.sleep(WRONG_TOKEN_S)
        return False

    async def login(self, request: web.Request) -> web.StreamResponse:
        """POST /login with the token as JSON: begins a session."""
        try:
            body = json.loads(await read_body(request))
        except (ValueError, RecursionError):
            body = None
        given = body.get("token") if isinstance(body, dict) else None
        if not isinstance(given, str) or not await self._is_token(given):
            return web.json_response({"error": "that is not the token"}, status=401)
        self._sessions = {cookie: session for cookie, session in self._sessions.items() if session.lasts}
        while len(self._sessions) >= MAX_SESSIONS:
            oldest = min(self._sessions, key=lambda cookie: self._sessions[cookie].until)
            self._sessions.pop(oldest).end()
        cookie, session = secrets.token_urlsafe(32), Session(time.monotonic() + SESSION_S)
        self._sessions[cookie] = session
        logger.info("%s at %s logged in", session.name, request.remote)
        response = web.json_response({"ok": True})
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=SESSION_S,
            httponly=True,
            samesite="Strict",
            secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def logout(self, request: web.Request) -> web.StreamResponse:
        """POST /logout: ends the session, and with it its streams."""
        if session := self._sessions.pop(request.cookies.get(COOKIE, ""), None):
            session.end()
            logger.info("%s logged out", session.name)
        response = web.json_response({"ok": True})
        response.del_cookie(COOKIE)
        return response

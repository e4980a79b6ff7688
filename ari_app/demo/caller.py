"""A SIP caller that speaks and listens in a real call: for the demo, and for tests from end to end. Shell.

    async with SipCaller(server=("127.0.0.1", 5060), user="demo-caller", password=password) as caller:
        call = await caller.dial("100")
        await call.answered(10)
        greeting = await call.listen_until_silence()
        await call.say(utterance("What time do you open?"))
        await call.hangup()

One caller holds one call at a time. Audio is PCM16 mono, 8 kHz; the codec on the wire is G.711 µ-law.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal

from ari_app.demo.asterisk_prefix import Prefix, fetch
from ari_app.demo.baresip import BARESIP, LOOPBACK, Baresip, CallerError, Event
from ari_app.demo.sip_call import DIAL_TIMEOUT_S, SipCall, write_source

log = logging.getLogger(__name__)

__all__ = ["CallerError", "SipCall", "SipCaller"]

REGISTER_TIMEOUT_S = 10.0
UNTAKEN_CALLS = 16
"""Incoming calls kept for `wait_incoming`; one at a time can be alive."""


class SipCaller:
    """A SIP user agent with an account. Construct without effect; start on enter; hang up, end it on exit.

    Args:
        server: host and port of the registrar and proxy; None for a peer that is called directly.
        user, password: the account.
        register: whether to register, which is needed to be called through the server.
        answer: "manual" rings until `SipCall.answer` or `.reject`; "auto" answers at once.
        address: IPv4 address of this machine for SIP and media.
        local_port: UDP port for SIP; 0 means any free one (see `sip_address`).
        work_dir: for the agent's files, kept afterwards; None means a temporary folder.
        prefix: baresip's private copy; None means it is fetched if necessary.

    Raises (on enter):
        SetupError: baresip cannot be had or does not start.
        CallerError: the registration is refused.
    """

    def __init__(
        self,
        *,
        server: tuple[str, int] | None = None,
        user: str = "caller",
        password: str = "",
        register: bool = False,
        answer: Literal["manual", "auto"] = "manual",
        address: str = LOOPBACK,
        local_port: int = 0,
        work_dir: Path | None = None,
        prefix: Prefix | None = None,
    ) -> None:
        self._server = server
        self._user = user
        self._password = password
        self._register = register
        self._answer = answer
        self._address = address
        self._local_port = local_port
        self._work_dir = work_dir
        self._prefix = prefix
        self._stack = AsyncExitStack()
        self._agent: Baresip | None = None
        self._folder = Path()
        self._call: SipCall | None = None
        self._incoming: asyncio.Queue[SipCall] = asyncio.Queue(UNTAKEN_CALLS)
        self._registered: asyncio.Future[None] | None = None

    @property
    def pid(self) -> int:
        """Process id of baresip.

        Raises:
            CallerError: it does not run.
        """
        pid = self._agent.pid if self._agent is not None else None
        if pid is None:
            raise CallerError("the SIP user agent baresip is not running")
        return pid

    @property
    def sip_address(self) -> tuple[str, int]:
        """Where it can be called directly."""
        return (self._address, self._agent.sip_port if self._agent is not None else self._local_port)

    async def dial(self, target: str) -> SipCall:
        """Call an extension of the server, or a SIP URI; returns when it rings, is answered or has ended.

        Raises:
            CallerError: another call is going on, or the server does not answer.
        """
        agent = self._running()
        if self._call is not None:
            if not self._call.ended:
                raise CallerError("the caller is in another call")
            await self._call.released()
        call = self._call = SipCall(agent, self._folder)
        try:
            await agent.command("dial", target)
            await call.progress()
        except CallerError:
            await self._abandon(call)
            raise
        return call

    async def wait_incoming(self, timeout: float = DIAL_TIMEOUT_S) -> SipCall:
        """The next call that comes in.

        Raises:
            CallerError: none does.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._incoming.get()
        except TimeoutError:
            raise CallerError(f"nobody calls within {timeout:g} s") from None

    async def __aenter__(self) -> SipCaller:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        if self._work_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="ari_app-caller-", ignore_cleanup_errors=True)
            self._folder = Path(self._stack.enter_context(temporary))
        else:
            self._folder = self._work_dir.resolve()
            self._folder.mkdir(parents=True, exist_ok=True)
        prefix = self._prefix
        if prefix is None:
            prefix = await asyncio.to_thread(fetch, log.info, BARESIP)
        write_source(self._folder, b"")
        self._agent = Baresip(prefix, self._folder, self._local_port, self._on_event, address=self._address)
        await self._agent.start()
        self._registered = asyncio.get_running_loop().create_future()
        await self._agent.command("uanew", self._account())
        if self._register:
            try:
                async with asyncio.timeout(REGISTER_TIMEOUT_S):
                    await self._registered
            except TimeoutError:
                raise CallerError("the server does not answer the registration") from None

    def _account(self) -> str:
        host, port = self._server or self.sip_address
        fields = {
            "auth_user": self._user,
            "auth_pass": self._password,
            "regint": "60" if self._register else "0",
            "answermode": self._answer,
            "audio_codecs": "PCMU/8000/1",
            "ptime": "20",
        }
        return f"<sip:{self._user}@{host}:{port}>" + "".join(f";{k}={v}" for k, v in fields.items() if v)

    async def _stop(self) -> None:
        try:
            if self._agent is not None:
                await self._agent.stop()
        finally:
            if self._call is not None:
                await self._abandon(self._call)
            await self._stack.aclose()

    async def _abandon(self, call: SipCall) -> None:
        if not call.ended:
            with contextlib.suppress(CallerError):
                await self._running().command("hangup")
        if not call.ended:
            call.take({"type": "GONE", "param": "the caller gave up"})
        await call.released()

    def _running(self) -> Baresip:
        if self._agent is None or self._agent.pid is None:
            raise CallerError("the SIP user agent baresip is not running")
        return self._agent

    def _on_event(self, event: Event) -> None:
        log.debug("baresip: %s %s", event["type"], event.get("param", ""))
        if event["type"] in ("REGISTER_OK", "REGISTER_FAIL") and self._registered is not None:
            if not self._registered.done() and event["type"] == "REGISTER_OK":
                self._registered.set_result(None)
            elif not self._registered.done():
                reason = event.get("param", "no reason given")
                self._registered.set_exception(CallerError(f"the server refuses the registration: {reason}"))
        elif event.get("class") == "call" or event["type"] == "GONE":
            self._on_call_event(event)

    def _on_call_event(self, event: Event) -> None:
        call = self._call
        if (
            event.get("direction") == "incoming"
            and (call is None or call.ended)
            and event["type"] != "CALL_CLOSED"
        ):
            call = self._call = SipCall(self._running(), self._folder)
            if self._incoming.full():  # nobody asks for them: the oldest is forgotten, it has ended long ago
                self._incoming.get_nowait()
            self._incoming.put_nowait(call)
        if call is None or call.ended:
            return
        call.take(event)
        if call.ended and event["type"] != "GONE":
            write_source(self._folder, b"")  # the next call must not begin with this one's last utterance

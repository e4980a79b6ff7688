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
import logging
import os
import re
import struct
import tempfile
import wave
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from ari_app.audio.format import SAMPLE_BYTES, TELEPHONE_RATE_HZ, bytes_to_ms
from ari_app.demo.asterisk_prefix import Prefix, fetch
from ari_app.demo.baresip import BARESIP, LOOPBACK, POLL_S, SINK, SOURCE, Baresip, CallerError, Event
from ari_app.demo.hearing import GrowingRecording, Heard

log = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 10.0
REGISTER_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 15.0
HANGUP_TIMEOUT_S = 5.0
LONGEST_SILENCE_S = 600
"""A call ends this long after the caller's last utterance, because baresip's source file does."""
FLUSH_S = 0.1
"""After a call baresip closes the recording, which writes the last piece."""
SHORTEST_KEY_S = 0.25
"""Between two keys, so that each is an event of its own."""

CLOSE_REASONS = {
    "Connection reset by peer": "hung up by the other side",
    "Connection reset by user": "hung up by the caller",
}
"""What baresip says when there is no SIP status to report."""

Sound = bytes | Path
"""PCM16 mono 8 kHz, or a WAV file that holds that."""


@dataclass(frozen=True, slots=True)
class Said:
    """When an utterance began and ended on the caller's side, in seconds of the loop clock."""

    began_at: float
    ended_at: float


class SipCall:
    """One call, made or received. Comes from `SipCaller.dial` or `SipCaller.wait_incoming`."""

    def __init__(self, agent: Baresip, folder: Path) -> None:
        self.status: int | None = None
        """The last SIP status known: 180 or 183 while it rings, 200 once answered, or the one it failed with."""
        self.close_reason = ""
        """Why it ended, e.g. "486 Busy Here" or "hung up by the other side"; empty while it lives."""
        self.ended = False
        self.sip_call_id = ""
        self.peer_uri = ""
        self.received_dtmf = ""
        """Keys pressed by the other side."""
        self._agent = agent
        self._folder = folder
        self._changed = asyncio.Event()
        self._recording = GrowingRecording(folder / SINK)
        self._cursor_bytes = 0
        self._follower = asyncio.create_task(self._follow(), name="sip-call-recording")

    # --- what happens to the call

    async def answered(self, timeout: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until it is answered.

        Raises:
            CallerError: it ended instead, or nobody answers.
        """
        await self._wait(lambda: self.ended or self.status == 200, timeout, "the call is not answered")
        if self.ended:
            raise CallerError(f"the call ended ({self.close_reason})")

    async def closed(self, timeout: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until it has ended and all that was heard is in `received_pcm`.

        Raises:
            CallerError: it goes on.
        """
        await self._wait(lambda: self.ended, timeout, "the call does not end")
        await self._follower

    async def answer(self) -> None:
        """Accept an incoming call."""
        await self._agent.command("accept")
        await self.answered()

    async def reject(self) -> None:
        """Refuse an incoming call with 486 Busy Here, the only refusal that baresip 1.1 has."""
        await self.hangup()

    async def hangup(self) -> None:
        """End it at any stage: CANCEL while it rings, BYE once answered. Does nothing if it has ended."""
        if not self.ended:
            await self._agent.command("hangup")
            await self.closed(HANGUP_TIMEOUT_S)

    # --- speaking

    async def say(self, sound: Sound) -> Said:
        """Speak into the call; returns when the last sample has been sent."""
        pcm = await asyncio.to_thread(_load, sound)
        await asyncio.to_thread(_write_source, self._folder, pcm)
        await self._agent.command("ausrc", f"aufile,{SOURCE}")
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        ended_at = began_at + bytes_to_ms(len(pcm)) / 1000
        await asyncio.sleep(ended_at - loop.time())
        self._cursor_bytes = self._recording.position_at(ended_at)
        return Said(began_at, ended_at)

    async def say_over(self, sound: Sound, *, after_ms: float = 500, timeout: float = 10.0) -> Said:
        """Wait until the other side has spoken for `after_ms`, then speak over it.

        What is heard is known up to 256 ms late, and the utterance begins that much later.

        Raises:
            CallerError: the other side says nothing.
        """
        start = self._cursor_bytes

        def is_speaking() -> bool:
            return self.ended or self._recording.heard(start).sound_s * 1000 >= after_ms

        await self._wait(is_speaking, timeout, "the other side says nothing to speak over")
        return await self.say(sound)

    async def send_dtmf(self, keys: str) -> None:
        """Press keys (0-9, *, #, A-D), sent as RTP events (RFC 4733)."""
        if not re.fullmatch(r"[0-9*#A-D]+", keys):
            raise CallerError("keys are 0-9, *, # and A-D")
        for key in keys:
            await self._agent.command("sndcode", key)
            await asyncio.sleep(SHORTEST_KEY_S)

    # --- listening

    def received_pcm(self) -> bytes:
        """Everything heard so far, from the moment audio began, silence included."""
        return bytes(self._recording.pcm)

    def heard_since(self, when: float) -> Heard:
        """Everything heard since a time of the loop clock."""
        return self._recording.heard(self._recording.position_at(when))

    async def listen_until_silence(self, *, min_silence_ms: float = 700, max_s: float = 15.0) -> Heard:
        """Listen until the other side has spoken and then been quiet for `min_silence_ms`.

        Begins where the last `say` ended or the last listening stopped, so nothing between is missed. Ends
        early after `max_s` or when the call ends. Known up to 256 ms late; the times in the result are not.
        """
        start = self._cursor_bytes

        def is_over() -> bool:
            heard = self._recording.heard(start)
            end_at = self._recording.time_of(start + len(heard.pcm))
            return self.ended or (
                heard.last_sound_at is not None and end_at - heard.last_sound_at >= min_silence_ms / 1000
            )

        try:
            await self._wait(is_over, max_s, "")
        except CallerError:
            log.debug("listened for %g s without a silence after speech", max_s)
        if self.ended:
            await self._follower
        heard = self._recording.heard(start)
        self._cursor_bytes = start + len(heard.pcm)
        return heard

    # --- used by SipCaller

    def take(self, event: Event) -> None:
        """Apply one of baresip's events."""
        self.sip_call_id = self.sip_call_id or event.get("id", "")
        self.peer_uri = self.peer_uri or event.get("peeruri", "")
        match event["type"]:
            case "CALL_RINGING":
                self.status = 180
            case "CALL_PROGRESS":
                self.status = 183
            case "CALL_ANSWERED" | "CALL_ESTABLISHED":
                self.status = 200
            case "CALL_DTMF_START":
                self.received_dtmf += event.get("param", "")
            case "CALL_CLOSED" | "GONE":
                self.ended = True
                reason = event.get("param", "")
                self.close_reason = CLOSE_REASONS.get(reason, reason)
                code = re.match(r"([3-6]\d\d) ", self.close_reason)
                self.status = int(code[1]) if code else self.status
        self._notify()

    async def progress(self) -> None:
        """Wait until the other side has answered in any way."""
        await self._wait(
            lambda: self.ended or self.status is not None, DIAL_TIMEOUT_S, "the server does not answer"
        )

    async def released(self) -> None:
        """Wait until the recording is complete and its file is gone."""
        await self._follower

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, condition: Callable[[], bool], timeout: float, failure: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            raise CallerError(f"{failure} within {timeout:g} s") from None

    async def _follow(self) -> None:
        """Read along while baresip records; afterwards make room for the next call's recording."""
        loop = asyncio.get_running_loop()
        while not self.ended:
            if self._recording.poll(loop.time()):
                self._notify()
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(FLUSH_S)
        self._recording.poll(loop.time())
        (self._folder / SINK).unlink(missing_ok=True)
        self._notify()


class SipCaller:
    """A SIP user agent with an account. Construct without effect; start on enter; hang up, end it on exit.

    Args:
        server: host and port of the registrar and proxy; None for a peer that is called directly.
        user, password: the account.
        register: whether to register, which is needed to be called through the server.
        answer: "manual" rings until `SipCall.answer` or `.reject`; "auto" answers at once.
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
        local_port: int = 0,
        work_dir: Path | None = None,
        prefix: Prefix | None = None,
    ) -> None:
        self._server = server
        self._user = user
        self._password = password
        self._register = register
        self._answer = answer
        self._local_port = local_port
        self._work_dir = work_dir
        self._prefix = prefix
        self._stack = AsyncExitStack()
        self._agent: Baresip | None = None
        self._folder = Path()
        self._call: SipCall | None = None
        self._incoming: asyncio.Queue[SipCall] = asyncio.Queue()  # bounded by one call at a time
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
        return (LOOPBACK, self._agent.sip_port if self._agent is not None else self._local_port)

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
        prefix = self._prefix or await asyncio.to_thread(fetch, log.info, BARESIP)
        _write_source(self._folder, b"")
        self._agent = Baresip(prefix, self._folder, self._local_port, self._on_event)
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
            self._incoming.put_nowait(call)
        if call is None or call.ended:
            return
        call.take(event)
        if call.ended and event["type"] != "GONE":
            _write_source(self._folder, b"")  # the next call must not begin with this one's last utterance


def _load(sound: Sound) -> bytes:
    if isinstance(sound, bytes):
        return sound
    try:
        with wave.open(str(sound), "rb") as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (TELEPHONE_RATE_HZ, 1, 2):
                raise CallerError(f"{sound} is not a WAV file of 16 bits, one channel and 8 kHz")
            return file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise CallerError(f"{sound} cannot be read as a WAV file: {error}") from None


def _write_source(folder: Path, pcm: bytes) -> None:
    """Replace what baresip reads when told to: the utterance, then silence, so that its RTP never stops."""
    length_bytes = len(pcm) + LONGEST_SILENCE_S * TELEPHONE_RATE_HZ * SAMPLE_BYTES
    byte_rate = TELEPHONE_RATE_HZ * SAMPLE_BYTES
    header = struct.pack("<4sI4s", b"RIFF", 36 + length_bytes, b"WAVE")
    header += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, TELEPHONE_RATE_HZ, byte_rate, SAMPLE_BYTES, 16)
    header += struct.pack("<4sI", b"data", length_bytes)
    fresh = folder / f"{SOURCE}.new"
    with fresh.open("wb") as file:
        file.write(header + pcm)
        file.truncate(len(header) + length_bytes)  # a hole reads as zeros and takes no disk space
    os.replace(fresh, folder / SOURCE)

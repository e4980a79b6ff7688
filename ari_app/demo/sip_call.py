"""One call of the SIP caller: its course, speaking and listening. Shell, made by `SipCaller`."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import struct
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ari_app.audio.format import SAMPLE_BYTES, TELEPHONE_RATE_HZ, bytes_to_ms
from ari_app.demo.baresip import POLL_S, SINK, SOURCE, Baresip, CallerError, Event
from ari_app.demo.hearing import GrowingRecording, Heard

log = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 10.0
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
    "Connection reset by user": "hung up here",
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
        """The last SIP status known: 180 or 183 while it rings, 200 once answered, or that of the failure."""
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
        """Speak into the call; returns when the last sample has been sent.

        An utterance still going on is cut off. This one goes on if the task is cancelled.
        """
        pcm = await asyncio.to_thread(_load, sound)
        await asyncio.to_thread(write_source, self._folder, pcm)
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
        self.sip_call_id = self.sip_call_id or str(event.get("id", ""))
        self.peer_uri = self.peer_uri or str(event.get("peeruri", ""))
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
                reason = str(event.get("param", ""))
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


def write_source(folder: Path, pcm: bytes) -> None:
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

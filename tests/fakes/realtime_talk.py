"""A Realtime conversation in memory: the core between a scripted server, a stepped playout and a loud caller."""

from __future__ import annotations

import base64
import random
import struct
from typing import Any, TypeVar

from ari_app.audio.format import SILENT_FRAME
from ari_app.dialog.ports import Fact
from ari_app.openai_api.realtime_conversation import RealtimeConversation
from ari_app.openai_api.realtime_patience import Manners
from ari_app.openai_api.realtime_protocol import Event, RealtimeSettings
from ari_app.openai_api.realtime_usage import Meter, Priced
from tests.fakes.brain_ports import SteppedPlayout, local_sentence
from tests.fakes.phrases import phrasebook

F = TypeVar("F", bound=Fact)

SETTINGS = RealtimeSettings("some-model", "some-voice", instructions="Be brief.", transcription_model="ear")
MANNERS = Manners(
    phrases=phrasebook(apology=local_sentence(400), regret=local_sentence(400), hold=local_sentence(300))
)
PRICES = {
    "text_in": 1,
    "text_in_cached": 2,
    "text_out": 4,
    "audio_in": 8,
    "audio_in_cached": 16,
    "audio_out": 32,
}


class Session:
    """One connection as the conversation sees it."""

    def __init__(self) -> None:
        self.sent: list[Event] = []
        self.appends = 0
        self.appended_bytes = 0
        self.abandoned = ""

    def send(self, event: Event) -> None:
        self.sent.append(event)

    def send_audio(self, audio: str) -> None:
        self.appends += 1
        self.appended_bytes += len(base64.b64decode(audio))

    def abandon(self, why: str) -> None:
        self.abandoned = why

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.sent]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.sent if event["type"] == kind]


class Talk:
    """A caller, a server and what became of it."""

    def __init__(self, settings: RealtimeSettings = SETTINGS, manners: Manners = MANNERS) -> None:
        self.playout = SteppedPlayout()
        self.facts: list[Fact] = []
        self.remarks: list[tuple[str, str]] = []
        self.meter = Meter()
        self.meter.use(Priced(settings.model, PRICES), Priced("writer", {"minute": 0.006}))
        self.core = RealtimeConversation(
            settings,
            manners,
            self.playout,
            self.facts.append,
            lambda kind, words: self.remarks.append((kind, words)),
            self.meter,
        )
        self.now = 100.0
        self.session = Session()
        self._noise = random.Random(5)

    def begin(self) -> Session:
        """A new session takes over."""
        self.session = Session()
        for event in self.core.history_events():
            self.session.send(event)
        self.core.session_begun(self.session, self.now)
        return self.session

    def lose(self) -> None:
        self.core.session_lost(self.now)

    # --- the caller

    def frame(self, loud: bool = False) -> None:
        """20 ms of the call in both directions."""
        self.now += 0.02
        frame = SILENT_FRAME
        if loud:
            frame = struct.pack("<160h", *(self._noise.randint(-9000, 9000) for _ in range(160)))
        self.core.push_audio(frame, self.now)
        for mark in self.playout.step():
            self.core.push_mark(mark, self.now)

    def silence(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.frame()

    def speak(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.frame(loud=True)

    # --- the server

    def event(self, kind: str, **fields: Any) -> None:
        self.core.push_event({"type": kind, "event_id": "e", **fields}, self.now)

    @property
    def clock_ms(self) -> int:
        """The server's clock: all audio that was appended."""
        return self.session.appended_bytes // 48

    def server_hears(
        self, item: str, *, ms: int = 600, window_ms: int = 500, transcript: str | None = ""
    ) -> None:
        """A turn of the caller as a server detector sees it; `transcript` "" comes later, None not at all."""
        start_ms = max(0, self.clock_ms - 300)
        self.speak(200)
        self.event("input_audio_buffer.speech_started", item_id=item, audio_start_ms=start_ms)
        self.speak(ms - 200)
        self.silence(window_ms)
        self.end_turn(item)
        if transcript:
            self.transcribed(item, transcript)

    def end_turn(self, item: str) -> None:
        self.event("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=self.clock_ms)
        self.event("input_audio_buffer.committed", item_id=item, previous_item_id=None)

    def transcribed(self, item: str, text: str) -> None:
        kind = "conversation.item.input_audio_transcription.completed"
        self.event(kind, item_id=item, content_index=0, transcript=text, languages=[{"code": "en"}])

    def answers(self, response: str, text: str, *, ms: int = 1000, done: bool = True) -> None:
        """A response of one spoken item, sent at once as fast servers do."""
        item = f"{response}-item"
        self.event("response.created", response={"id": response, "status": "in_progress"})
        self.says(response, text, ms=ms)
        if done:
            self.event(
                "response.output_item.done", response_id=response, item={"id": item, "type": "message"}
            )
            self.finishes(response)

    def says(self, response: str, text: str, *, ms: int = 1000) -> None:
        """A piece of speech."""
        place = {"response_id": response, "item_id": f"{response}-item", "content_index": 0}
        self.event("response.output_audio_transcript.delta", **place, delta=text)
        delta = base64.b64encode(b"\x00\x10" * (24 * ms)).decode()
        self.event("response.output_audio.delta", **place, delta=delta)

    def finishes(self, response: str, status: str = "completed", **more: Any) -> None:
        self.event("response.done", response={"id": response, "status": status, **more})

    # --- what became of it

    def all(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def heard_ms(self, item: str) -> int:
        """What the caller heard of an item, by the frames that left."""
        return 20 * self.playout.sent.count(item)

"""A session of OpenAI's GA Realtime protocol on the server's side: client events in, server events out. Core.

Speech-to-text and text-to-speech are the shell's work: it gets `Transcribe`, `Speak` and `Stop` and calls back.

A caller's turn, by the detector:
    speech_started -> speech_stopped, committed, item.added, item.done, Transcribe
    -> understood, accepted: transcription.completed, response.created … response.done
    -> understood, rejected: transcription.completed without words, and no response is ever created
A turn that is understood while the caller speaks again is answered together with the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ari_app.offline.realtime_audio import Decoder
from ari_app.offline.realtime_config import (
    Check,
    Event,
    Invalid,
    fields,
    mapping,
    missing,
    new_session,
    number,
    optional,
    response_settings,
    text,
    unsupported,
    updated,
)
from ari_app.offline.realtime_hearing import Hearing, Transcribe, decoded
from ari_app.offline.realtime_input import SHORTEST_COMMIT_MS, InputBuffer, SpeechStarted
from ari_app.offline.realtime_items import Conversation
from ari_app.offline.realtime_response import Response
from ari_app.offline.realtime_responses import Responses, Speak, Stop

Work = Transcribe | Speak | Stop


def _anything(value: Any, path: str) -> Any:
    return value


_ITEM_ID: dict[str, Check] = {"item_id": text}
_EVENTS: dict[str, tuple[Mapping[str, Check], tuple[str, ...]]] = {
    "session.update": ({"session": mapping}, ("session",)),
    "input_audio_buffer.append": ({"audio": _anything}, ("audio",)),
    "input_audio_buffer.commit": ({}, ()),
    "input_audio_buffer.clear": ({}, ()),
    "conversation.item.create": ({"item": mapping, "previous_item_id": optional(text)}, ("item",)),
    "conversation.item.truncate": (
        _ITEM_ID | {"content_index": number(0, 0, whole=True), "audio_end_ms": number(0, 2**31, whole=True)},
        ("item_id", "content_index", "audio_end_ms"),
    ),
    "conversation.item.delete": (_ITEM_ID, ("item_id",)),
    "conversation.item.retrieve": (_ITEM_ID, ("item_id",)),
    "response.create": ({"response": optional(mapping)}, ()),
    "response.cancel": ({"response_id": optional(text)}, ()),
}
"""Fields and required fields of each client event, beside `type` and `event_id`."""


class RealtimeSession:
    """One connection.

    Args:
        key: makes ids of this session differ from those of others.
        expires_at: seconds since 1970.
        send: takes a server event; it must be done with the object when it returns.
        work: takes what the shell is to do; must not call back before it returns.
        knows: whether a language (ISO 639-1) can be understood.
    """

    def __init__(
        self,
        key: str,
        model: str,
        expires_at: int,
        send: Callable[[Event], None],
        work: Callable[[Work], None],
        knows: Callable[[str], bool],
    ) -> None:
        self._key = key
        self._send_event = send
        self._knows = knows
        self._count = 0
        self._session = new_session(self._new_id("sess"), model, expires_at)
        self._conversation = Conversation()
        conversation_id = self._new_id("conv")
        self._responses = Responses(
            self._conversation, conversation_id, self._send, work, self._new_id, self._response_ended
        )
        self._hearing = Hearing(self._conversation, self._send, work)
        self._decoder = Decoder(self._listening["format"])
        self._input = InputBuffer(self._listening["turn_detection"])
        self._turn_item_id = ""
        self._owed = False
        """An answer, to what the caller said."""
        self._answer: Response | None = None
        """The last response that the detector called for."""
        self._idle_from_ms: float | None = None
        """Since when the caller is waited for, by the audio clock."""
        self._send({"type": "session.created", "session": self._session})

    def receive(self, event: Any) -> None:
        """Take one client event; what is wrong with it costs an `error` event."""
        event_id = event.get("event_id") if isinstance(event, dict) else None
        try:
            kind, values = _checked_event(event)
            self._handle(kind, values)
        except Invalid as invalid:
            self.refuse(invalid, event_id if isinstance(event_id, str) else None)

    def refuse(self, invalid: Invalid, event_id: str | None = None) -> None:
        """Send an `error` event."""
        error = {"type": "invalid_request_error", "code": invalid.code, "message": invalid.message}
        self._send({"type": "error", "error": error | {"param": invalid.param, "event_id": event_id}})

    # --- what the shell did

    def understood(self, item_id: str, words: str, language: str) -> None:
        """The words of an item's audio; none when it was no speech."""
        self._take_turn(self._hearing.understood(item_id, words, language))

    def not_understood(self, item_id: str, message: str) -> None:
        """Speech-to-text failed."""
        self._take_turn(self._hearing.not_understood(item_id, message))

    def say(self, response_id: str, words: str, audio: bytes) -> None:
        """One chunk of a response: the words that end in it, and its encoded audio."""
        self._responses.say(response_id, words, audio)

    def finished(self, response_id: str) -> None:
        """All chunks were said."""
        self._responses.finished(response_id)

    def failed(self, response_id: str, message: str) -> None:
        """A response can't be spoken."""
        self._responses.failed(response_id, message)

    # --- client events

    def _handle(self, kind: str, values: Event) -> None:
        match kind:
            case "session.update":
                self._update(values["session"])
            case "input_audio_buffer.append":
                self._append(values["audio"])
            case "input_audio_buffer.commit":
                self._commit()
            case "input_audio_buffer.clear":
                self._input.clear()
                self._send({"type": "input_audio_buffer.cleared"})
            case "conversation.item.create":
                previous, new_id = values.get("previous_item_id"), self._new_id("item")
                self._hearing.create(values["item"], new_id, previous, self._listening["format"])
            case "conversation.item.truncate":
                self._conversation.truncate(values["item_id"], values["audio_end_ms"])
                self._send({"type": "conversation.item.truncated", **values})
            case "conversation.item.delete":
                self._conversation.delete(values["item_id"])
                self._send({"type": "conversation.item.deleted", **values})
                self._go_on()  # it may have been what was waited for
            case "conversation.item.retrieve":
                item = self._conversation.find(values["item_id"])
                self._send({"type": "conversation.item.retrieved", "item": item.wire})
            case "response.create":
                response = self._responses.create(response_settings(self._session, values.get("response")))
                self._owed = self._owed and response.conversation_id is None
            case "response.cancel":
                self._responses.cancel(self._responses.wanted(values.get("response_id")), "client_cancelled")

    @property
    def _listening(self) -> Event:
        side: Event = self._session["audio"]["input"]
        return side

    def _update(self, update: Event) -> None:
        before = self._listening["format"]
        self._session = updated(self._session, update, spoke=self._responses.spoke, knows=self._knows)
        if self._listening["format"] != before:
            self._decoder = Decoder(self._listening["format"])
        self._input.detect(self._listening["turn_detection"])
        self._hearing.transcription = self._listening["transcription"]
        self._send({"type": "session.updated", "session": self._session})

    def _append(self, audio: object) -> None:
        for event in self._input.push(self._decoder.push(decoded(audio, "audio"))):
            if isinstance(event, SpeechStarted):
                self._speech_started(event)
            else:
                item_id = self._turn_item_id
                ended = {"audio_end_ms": event.audio_end_ms, "item_id": item_id}
                self._send({"type": "input_audio_buffer.speech_stopped", **ended})
                self._hearing.add_turn(item_id, event.turn, detected=True)
        self._watch_idle()

    def _speech_started(self, event: SpeechStarted) -> None:
        self._turn_item_id = self._new_id("item")
        began = {"audio_start_ms": event.audio_start_ms, "item_id": self._turn_item_id}
        self._send({"type": "input_audio_buffer.speech_started", **began})
        default = self._responses.default
        if default and self._switch("interrupt_response"):
            # Nothing of it was heard, so the turn it answers is still to be answered.
            self._owed = self._owed or (default is self._answer and not default.audio_ms)
            self._responses.cancel(default, "turn_detected")
        self._idle_from_ms = None

    def _commit(self) -> None:
        item_id = self._turn_item_id if self._input.speaking else self._new_id("item")
        buffered_ms = self._input.uncommitted_ms
        turn = self._input.commit()
        if turn is None:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{SHORTEST_COMMIT_MS}ms of audio, but buffer only has {buffered_ms:.2f}ms of audio."
            )
            raise Invalid("input_audio_buffer_commit_empty", message)
        self._hearing.add_turn(item_id, turn, detected=False)

    # --- turns and answers

    def _take_turn(self, accepted: bool | None) -> None:
        """Some audio is understood; `accepted` is None when it was no turn of the detector."""
        if accepted and self._switch("create_response"):
            self._owed = True
        if accepted is False:
            self._idle_from_ms = float(self._input.clock_ms)
        self._go_on()

    def _go_on(self) -> None:
        """Begin what waited for the caller's words, if all are known now, and answer."""
        waiting = self._responses.default
        if waiting and not waiting.begun:
            self._owed = False  # the client asked for the answer before we could
        self._responses.advance()
        speaks = self._input.speaking and self._switch("interrupt_response")
        if self._owed and not speaks and not self._conversation.pending:
            self._owed = False
            self._respond()

    def _respond(self) -> None:
        """A response that the detector calls for; OpenAI's fails too when another one is running."""
        try:
            self._answer = self._responses.create(response_settings(self._session, None))
        except Invalid as invalid:
            self.refuse(invalid)

    def _switch(self, name: str) -> bool:
        return bool((self._listening["turn_detection"] or {}).get(name))

    # --- the idle timeout

    def _response_ended(self, response: Response) -> None:
        if response.conversation_id:  # the caller is waited for from when all of it has been played
            self._idle_from_ms = self._input.clock_ms + response.audio_ms

    def _watch_idle(self) -> None:
        timeout_ms = (self._listening["turn_detection"] or {}).get("idle_timeout_ms")
        busy = self._input.speaking or self._responses.default or self._conversation.pending
        if timeout_ms is None or self._idle_from_ms is None or busy:
            return
        if self._input.clock_ms < self._idle_from_ms + timeout_ms:
            return
        item_id = self._new_id("item")
        silence = {"audio_start_ms": int(self._idle_from_ms), "audio_end_ms": self._input.clock_ms}
        self._send({"type": "input_audio_buffer.timeout_triggered", "item_id": item_id, **silence})
        self._idle_from_ms = None
        self._input.clear()
        self._hearing.add_turn(item_id, None, detected=False)
        self._respond()

    # --- server events

    def _send(self, event: Event) -> None:
        self._send_event({"event_id": self._new_id("event"), **event})

    def _new_id(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._key}{self._count:06x}"


def _checked_event(event: Any) -> tuple[str, Event]:
    """Type and own fields of a client event."""
    kind = mapping(event, "event").get("type")
    if kind is None:
        raise missing("type")
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise Invalid("invalid_value", unsupported(kind, tuple(_EVENTS)), "type")
    known, required = _EVENTS[kind]
    values = fields({**known, "type": text, "event_id": optional(text)}, required)(event, "")
    return kind, {name: value for name, value in values.items() if name in known}

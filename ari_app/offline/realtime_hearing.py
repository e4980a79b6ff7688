"""Items with the caller's audio in a Realtime session: added, transcribed, and told what was understood. Core."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.gate import rejection
from ari_app.offline.realtime_audio import Decoder
from ari_app.offline.realtime_config import Event, Invalid, languages_of
from ari_app.offline.realtime_input import Turn
from ari_app.offline.realtime_items import Conversation, Item, checked_item


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Work for the shell: understand PCM16 at 8 kHz, then call `understood` or `not_understood`."""

    item_id: str
    pcm: bytes = field(repr=False)
    languages: Sequence[str]
    """Empty when the client does not say."""


class Hearing:
    """One transcription per item with audio, whether the client wants to read it or not."""

    def __init__(
        self,
        conversation: Conversation,
        send: Callable[[Event], None],
        work: Callable[[Transcribe], None],
    ) -> None:
        self._conversation = conversation
        self._send = send
        self._work = work
        self._turns: dict[str, Turn] = {}
        """What the detector found, of items that are not understood yet."""
        self.transcription: Event | None = None
        """The session's setting; without it the client reads nothing."""

    def add_turn(self, item_id: str, turn: Turn | None, *, detected: bool) -> None:
        """A committed piece of the caller's audio; without a turn it is a silence."""
        wire = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None if turn else ""}],
        }
        item = Item(wire, pending=turn is not None)
        previous = self._conversation.add(item)
        committed = {"item_id": item_id, "previous_item_id": previous}
        self._send({"type": "input_audio_buffer.committed", **committed})
        self._tell_added(item, previous)
        if turn:
            if detected:
                self._turns[item_id] = turn
            self._transcribe(item, turn.pcm)

    def create(self, given: Event, item_id: str, previous_item_id: str | None, wire_format: Event) -> None:
        """The item of `conversation.item.create`; `item_id` is for one that has none.

        Raises:
            Invalid: a field is wrong.
        """
        wire = checked_item(given, "item")
        pcm = b""
        content = []
        for i, part in enumerate(wire.get("content", ())):
            if part["type"] == "input_audio":
                pcm += Decoder(wire_format).push(decoded(part["audio"], f"item.content[{i}].audio"))
                part = {"type": "input_audio", "transcript": None}
            content.append(part)
        wire |= {"content": content} if content else {}
        wire |= {"id": wire.get("id") or item_id, "object": "realtime.item", "status": "completed"}
        item = Item(wire, pending=bool(pcm))
        self._tell_added(item, self._conversation.add(item, previous_item_id))
        if pcm:
            self._transcribe(item, pcm)

    def understood(self, item_id: str, words: str, language: str) -> bool | None:
        """Take the words of an item: whether they are a turn of the detector; None when it knows of none.

        Of what the gate rejects, no word stays.
        """
        item = self._known(item_id)
        turn = self._turns.pop(item_id, None)
        if item is None:
            return False if turn else None
        speech_ms, span_ms = (turn.speech_ms, turn.span_ms) if turn else (item.audio_ms, item.audio_ms)
        if rejection(words, speech_ms, span_ms):
            words = ""
        for part in item.wire["content"]:
            if part["type"] == "input_audio":
                part["transcript"] = words
        item.ignored = bool(turn) and not words
        if words:
            self._tell(item, "delta", delta=words)
        usage = {"type": "duration", "seconds": round(item.audio_ms / 1000, 3)}
        self._tell(item, "completed", transcript=words, usage=usage, languages=[{"code": language}])
        return bool(words) if turn else None

    def not_understood(self, item_id: str, message: str) -> bool | None:
        """Speech-to-text failed; returns what `understood` does."""
        item = self._known(item_id)
        turn = self._turns.pop(item_id, None)
        if item:
            item.ignored = True
            error = {"type": "server_error", "code": "server_error", "message": message, "param": None}
            self._tell(item, "failed", error=error)
        return False if turn else None

    def _transcribe(self, item: Item, pcm: bytes) -> None:
        item.audio_ms = bytes_to_ms(len(pcm))
        self._work(Transcribe(item.id, pcm, languages_of(self.transcription)))

    def _known(self, item_id: str) -> Item | None:
        """The item that is no longer pending; None if it was deleted meanwhile."""
        for item in self._conversation:
            if item.id == item_id and item.pending:
                item.pending = False
                return item
        return None

    def _tell_added(self, item: Item, previous: str | None) -> None:
        for kind in ("added", "done"):
            told = {"previous_item_id": previous, "item": item.wire}
            self._send({"type": f"conversation.item.{kind}", **told})

    def _tell(self, item: Item, kind: str, **more: Any) -> None:
        if self.transcription:
            index = next(i for i, part in enumerate(item.wire["content"]) if part["type"] == "input_audio")
            name = f"conversation.item.input_audio_transcription.{kind}"
            self._send({"type": name, "item_id": item.id, "content_index": index, **more})


def decoded(audio: object, path: str) -> bytes:
    """Base64 to bytes; raises `Invalid` for what is none."""
    if not isinstance(audio, str):
        raise Invalid("invalid_type", f"Invalid type for '{path}': expected base64 in a string.", path)
    try:
        return base64.b64decode(audio, validate=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII
        raise Invalid("invalid_value", f"Invalid '{path}': not base64.", path) from None

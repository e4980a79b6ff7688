"""One response of the server on its way to the caller's ear. Core.

The server sends audio several times faster than it is spoken, so it can't know what the caller heard. Playout
does: from it come the words kept after an interruption, and the events that tell the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_app.audio.format import TELEPHONE_RATE_HZ, bytes_to_ms
from ari_app.dialog.history import heard_part
from ari_app.dialog.ports import BotSaid, ItemFinished, Playout, PlayoutMark
from ari_app.openai_api.realtime_protocol import (
    Downlink,
    Event,
    RealtimeSettings,
    item_delete,
    item_truncate,
    number_of,
    object_of,
    text_of,
)
from ari_app.texts import clean

MAX_UNHEARD_MS = 5 * 60_000
"""Of all answers that are being heard or wait; no answer speaks that long, and what comes beyond is dropped."""
MAX_ITEMS = 16
"""Messages of one response."""
MAX_ITEM_CHARS = 20_000
"""Words of one, which are several times `MAX_UNHEARD_MS`."""
REMEMBERED_RESPONSES = 64
MS_PER_CHAR = 65.0
"""Speaking rate assumed while the length is not known: about 15 characters per second."""


@dataclass(slots=True)
class _Item:
    """One message of the response."""

    downlink: Downlink
    content_index: int = 0
    text: str = ""
    sent: bytearray = field(default_factory=bytearray)
    """What was given to playout, 8 kHz."""
    complete: bool = False
    """All of its audio is in `sent`."""
    finished: bool = False
    """The caller heard its end."""

    @property
    def total_ms(self) -> float:
        sent_ms = bytes_to_ms(len(self.sent))
        return sent_ms if self.complete else max(sent_ms, len(self.text) * MS_PER_CHAR)


class SpokenResponse:
    """Plays one response, and knows how much of it was heard."""

    def __init__(self, response_id: str, turn: int, playout: Playout, settings: RealtimeSettings) -> None:
        self.response_id = response_id
        self.turn = turn
        """The caller turn that it answers; 0 is the greeting."""
        self.concluded = False
        """Its words are in the records."""
        self.foreign = False
        """Of a session that is gone: the one in force knows its words, but not its items."""
        self._playout = playout
        self._settings = settings
        self._items: dict[str, _Item] = {}
        self._has_audio = False
        self._generated = False
        self._broken = False
        self._cut = False
        self._begun_at: float | None = None

    # --- from the server

    def push_audio(self, item_id: str, content_index: int, delta: str) -> bool:
        """Play one delta; True when it was the first of the response that can be heard.

        Raises:
            ValueError: it is not base64.
        """
        item = self._item(item_id)
        if self._cut or item is None or item.complete:
            return False
        item.content_index = content_index
        first = not self.has_audio
        pcm = item.downlink.push(delta)
        self._play(item_id, item, pcm)
        return first and self.has_audio

    def push_text(self, item_id: str, delta: str) -> None:
        """More words of an item."""
        item = self._item(item_id)
        if item and not self._cut:
            item.text += clean(delta[: MAX_ITEM_CHARS - len(item.text)])

    def set_text(self, item_id: str, text: str) -> None:
        """All words of an item."""
        item = self._item(item_id)
        if item and not self._cut:
            item.text = clean(text[:MAX_ITEM_CHARS])

    def item_done(self, item_id: str) -> None:
        """No more audio comes for the item."""
        item = self._items.get(item_id)
        if item is None or item.complete or self._cut:
            return
        self._play(item_id, item, item.downlink.flush())
        item.complete = True
        if item.sent:
            self._playout.finish(item_id)

    def generated(self, *, broken: bool = False) -> None:
        """Nothing more comes, `broken` says that more was to come; what there is will be played to its end."""
        for item_id in self._items:
            self.item_done(item_id)
        self._generated = True
        self._broken = broken

    # --- from playout

    def push_mark(self, mark: PlayoutMark, now: float) -> bool:
        """Something happened in playout; True when it is the first frame of this response."""
        item = self._items.get(mark.item_id)
        if item is None:
            return False
        if isinstance(mark, ItemFinished):
            item.finished = True
            return False
        if self._begun_at is not None:
            return False
        self._begun_at = now
        return True

    # --- state

    @property
    def has_audio(self) -> bool:
        """Something of it can be heard, or was."""
        return self._has_audio

    @property
    def kept_ms(self) -> float:
        """Audio that is kept until its words are in the records."""
        return bytes_to_ms(sum(len(item.sent) for item in self._items.values()))

    @property
    def text(self) -> str:
        """All words so far."""
        return " ".join(filter(None, (item.text for item in self._items.values())))

    @property
    def broken(self) -> bool:
        """More was to come, and never will."""
        return self._broken

    @property
    def complete(self) -> bool:
        """Nothing more comes from the server."""
        return self._generated

    @property
    def being_heard(self) -> bool:
        """True from its first frame to its last, also where playout waits for the server."""
        return self._begun_at is not None and not self.over

    @property
    def over(self) -> bool:
        """Nothing more of it will be heard."""
        heard = all(item.finished or not item.sent for item in self._items.values())
        return self._cut or (self._generated and heard)

    def cut(self) -> list[Event]:
        """The caller interrupts, and playout was cleared: what the server has to be told.

        What was heard to its end is left alone, what was never heard is deleted, and the rest is truncated at
        the last millisecond that has left.
        """
        events = []
        for item_id, item in self._items.items():
            if item.finished and item.complete:
                continue
            played_ms = int(self._playout.played_ms(item_id))
            if played_ms > 0:
                end_ms = min(played_ms, int(item.downlink.received_ms))
                events.append(item_truncate(item_id, item.content_index, end_ms))
            else:
                events.append(item_delete(item_id))
        self._cut = True
        return events

    def outcome(self) -> BotSaid | None:
        """What became of it, were it to end now; None when the caller heard no whole word of it."""
        heard: list[str] = []
        pcm = bytearray()
        for item_id, item in self._items.items():
            played_ms = self._playout.played_ms(item_id)
            if item.finished and item.complete:
                heard.append(item.text)
                pcm += item.sent
            elif played_ms > 0:
                heard.append(heard_part(item.text, played_ms, item.total_ms))
                pcm += item.sent[: 2 * int(played_ms * TELEPHONE_RATE_HZ / 1000)]
        heard_text = " ".join(filter(None, heard))
        if not heard_text:
            return None
        interrupted = heard_text != self.text or self._broken or not self._generated
        return BotSaid(self.turn, self.text, heard_text, interrupted, bytes(pcm), self._begun_at)

    def release(self) -> None:
        """Its words are in the records: the audio is not needed any more."""
        for item in self._items.values():
            item.sent = bytearray()

    def _item(self, item_id: str) -> _Item | None:
        """None: it is one too many."""
        if item_id not in self._items and len(self._items) < MAX_ITEMS:
            self._items[item_id] = _Item(Downlink(self._settings))
        return self._items.get(item_id)

    def _play(self, item_id: str, item: _Item, pcm: bytes) -> None:
        if pcm:
            self._has_audio = True
            item.sent += pcm
            self._playout.play(item_id, pcm)


class Responses:
    """All responses of a call by their ids; those that are over are remembered, since pieces come late."""

    def __init__(self, playout: Playout, settings: RealtimeSettings) -> None:
        self._playout = playout
        self._settings = settings
        self._responses: dict[str, SpokenResponse] = {}

    def get(self, response_id: str, turn: int) -> SpokenResponse:
        """The response, which answers caller turn `turn` if it is new."""
        response = self._responses.get(response_id)
        if response is None:
            response = SpokenResponse(response_id, turn, self._playout, self._settings)
            self._responses[response_id] = response
            if len(self._responses) > REMEMBERED_RESPONSES:
                del self._responses[next(iter(self._responses))]
        return response

    def push_event(self, event: Event, turn: int) -> tuple[SpokenResponse, str]:
        """A piece of a response's content; with it the field of `TurnTimed` that it reaches, or "".

        Raises:
            ValueError: its audio is not base64, or is too much.
        """
        response = self.get(text_of(event, "response_id"), turn)
        item_id = text_of(event, "item_id")
        match text_of(event, "type"):
            case "response.output_audio.delta":
                if sum(other.kept_ms for other in self.live()) > MAX_UNHEARD_MS:
                    raise ValueError("so much speech waits already that nobody will hear it")
                index = int(number_of(event, "content_index"))
                first = response.push_audio(item_id, index, text_of(event, "delta"))
                return response, "first_tts_byte_at" if first else ""
            case "response.output_audio_transcript.delta":
                response.push_text(item_id, text_of(event, "delta"))
                return response, "first_token_at"
            case "response.output_audio_transcript.done":
                response.set_text(item_id, text_of(event, "transcript"))
            case "response.output_item.done":
                response.item_done(text_of(object_of(event, "item"), "id"))
        return response, ""

    def break_off(self) -> list[SpokenResponse]:
        """No more comes of those that are being made; what there is will be heard. Returns them."""
        broken = [response for response in self.live() if not response.complete]
        for response in broken:
            response.generated(broken=True)
        return broken

    def live(self) -> list[SpokenResponse]:
        """Those whose words are not in the records yet."""
        return [response for response in self._responses.values() if not response.concluded]

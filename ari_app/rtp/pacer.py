"""What leaves for the caller, frame by frame; the only one who knows what was heard. Core.

`Pacer` implements `dialog.ports.Playout` and is asked for one frame every 20 ms by the sender, whose deadlines
`FrameClock` works out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from ari_app.audio.format import (
    FRAME_BYTES,
    FRAME_MS,
    SAMPLE_BYTES,
    SILENT_FRAME,
    TELEPHONE_RATE_HZ,
    bytes_to_ms,
)
from ari_app.dialog.ports import ItemFinished, ItemStarted, PlayoutMark

MAX_QUEUED_BYTES = 10 * 60 * TELEPHONE_RATE_HZ * SAMPLE_BYTES
"""Ten minutes of speech; what is given beyond is dropped and counted: no answer is that long."""
REMEMBERED_ITEMS = 256
RAMP_SAMPLES = TELEPHONE_RATE_HZ * 5 // 1000
"""Speech that is cut off falls to silence in 5 ms, and rises as fast when it goes on: no click."""
REFILL_BYTES, MAX_REFILL_BYTES = (ms * TELEPHONE_RATE_HZ // 1000 * SAMPLE_BYTES for ms in (100, 800))
"""An item that ran dry goes on when so much is there, twice as much after each time: some pauses, no stutter."""


@dataclass(slots=True)
class _Item:
    item_id: str
    pcm: bytearray = field(default_factory=bytearray)
    started: bool = False
    finished: bool = False
    needed_bytes: int = FRAME_BYTES
    """So much must be there for the next frame to leave, unless no more comes."""
    refill_bytes: int = REFILL_BYTES


class Pacer:
    """One leg's playout queue. Items play in the order in which they were first given, without gaps."""

    def __init__(self) -> None:
        self.underruns = 0
        """Frames of silence in the middle of an item, because its audio came too slowly."""
        self.dropped_bytes = 0
        self._items: deque[_Item] = deque()
        self._queued_bytes = 0
        self._played_bytes: OrderedDict[str, int] = OrderedDict()
        self._marks: list[PlayoutMark] = []
        self._last_sample = 0
        self._paused = self._fade_in = False

    # --- Playout -------------------------------------------------------------------------------------

    def play(self, item_id: str, pcm: bytes) -> None:
        """Queue whole PCM16 8 kHz samples at the end of the item."""
        item = self._item(item_id)
        space = MAX_QUEUED_BYTES - self._queued_bytes
        if len(pcm) > space:
            self.dropped_bytes += len(pcm) - space
            pcm = pcm[:space]
        item.pcm += pcm
        self._queued_bytes += len(pcm)

    def finish(self, item_id: str) -> None:
        """No more audio comes for the item; nothing happens if it was cleared or finished before."""
        if item_id not in self._played_bytes or any(item.item_id == item_id for item in self._items):
            self._item(item_id).finished = True

    def clear(self) -> None:
        """Drop everything not yet sent."""
        for item in self._items:
            self._count(item.item_id, 0)
        self._items.clear()
        self._queued_bytes = 0
        self._paused = False

    def pause(self) -> None:
        """Silence from the next frame on; nothing is dropped."""
        self._paused = True

    def resume(self) -> None:
        """Go on with the sample at which it was paused."""
        self._fade_in = self._paused
        self._paused = False

    def played_ms(self, item_id: str) -> float:
        """Milliseconds of the item that have left."""
        return bytes_to_ms(self._played_bytes.get(item_id, 0))

    @property
    def speaking(self) -> bool:
        """True while any item is not done."""
        return bool(self._items)

    @property
    def starved(self) -> bool:
        """True while the caller hears silence in an item, because its audio does not come."""
        if not self._items or self._paused:
            return False
        return not self._items[0].finished and len(self._items[0].pcm) < self._items[0].needed_bytes

    # --- the sender's side ---------------------------------------------------------------------------

    def next_frame(self) -> bytes:
        """The frame that leaves now: 320 bytes of speech, or of silence."""
        while self._items and self._items[0].finished and not self._items[0].pcm:
            self._retire(self._items.popleft())
        if not self._items or self._paused:
            return self._silence()
        item = self._items[0]
        if len(item.pcm) < item.needed_bytes and not item.finished:
            if item.started:
                self._run_dry(item)
            return self._silence()
        self._fade_in = self._fade_in or item.needed_bytes > FRAME_BYTES
        item.needed_bytes = FRAME_BYTES
        return self._cut(item)

    def take_marks(self) -> list[PlayoutMark]:
        """What happened since the last time, in order."""
        marks, self._marks = self._marks, []
        return marks

    def _item(self, item_id: str) -> _Item:
        for item in self._items:
            if item.item_id == item_id:
                return item
        item = _Item(item_id)
        self._items.append(item)
        return item

    def _run_dry(self, item: _Item) -> None:
        self.underruns += 1
        if item.needed_bytes == FRAME_BYTES:
            item.needed_bytes = item.refill_bytes
            item.refill_bytes = min(2 * item.refill_bytes, MAX_REFILL_BYTES)

    def _cut(self, item: _Item) -> bytes:
        frame = bytes(item.pcm[:FRAME_BYTES])
        del item.pcm[:FRAME_BYTES]
        self._queued_bytes -= len(frame)
        if not item.started:
            item.started = True
            self._marks.append(ItemStarted(item.item_id))
        self._count(item.item_id, len(frame))
        if item.finished and not item.pcm:
            self._items.popleft()
            self._retire(item)
        self._last_sample = int.from_bytes(frame[-SAMPLE_BYTES:], "little", signed=True)
        if len(frame) < FRAME_BYTES:
            frame = frame.ljust(FRAME_BYTES, b"\0")
            self._last_sample = 0
        if self._fade_in:
            self._fade_in = False
            ramp = np.ones(FRAME_BYTES // SAMPLE_BYTES)
            ramp[:RAMP_SAMPLES] = np.linspace(0, 1, RAMP_SAMPLES)
            frame = (np.frombuffer(frame, "<i2") * ramp).astype("<i2").tobytes()
        return frame

    def _count(self, item_id: str, length_bytes: int) -> None:
        self._played_bytes[item_id] = self._played_bytes.get(item_id, 0) + length_bytes
        if len(self._played_bytes) > REMEMBERED_ITEMS:
            self._played_bytes.popitem(last=False)

    def _retire(self, item: _Item) -> None:
        self._marks.append(ItemFinished(item.item_id, self.played_ms(item.item_id)))

    def _silence(self) -> bytes:
        if not self._last_sample:
            return SILENT_FRAME
        ramp = np.linspace(self._last_sample, 0, RAMP_SAMPLES).astype("<i2").tobytes()
        self._last_sample = 0
        return ramp.ljust(FRAME_BYTES, b"\0")


MAX_BURST_FRAMES = 5
"""After a stall up to 100 ms are caught up at once; phones' jitter buffers hold about that much."""


class FrameClock:
    """When frames leave: start + n × 20 ms, whatever the loop did in between."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._frames = 0

    @property
    def next_at(self) -> float:
        """Deadline of the next frame."""
        return self._started_at + self._frames * FRAME_MS / 1000

    def due(self, now: float) -> tuple[int, int]:
        """Frames to send now, and frames of time to pass over after them.

        What a long stall made late beyond `MAX_BURST_FRAMES` is not sent in a burst: the speech goes on where it
        was, later, and the time is passed over in the RTP timestamp.
        """
        owed = max(0, int((now - self._started_at) * 1000 / FRAME_MS + 1e-6) + 1 - self._frames)
        self._frames += owed
        sent = min(owed, MAX_BURST_FRAMES)
        return sent, owed - sent

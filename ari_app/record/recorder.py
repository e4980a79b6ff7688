"""What a call leaves behind: transcripts, WAV files and `events.jsonl`, written as the call goes. Shell.

The media path and the dialog only append to memory; the thread of `writer.py` does the rest. When the disk stands still
for long, sound is replaced by silence of the same length and words are dropped, both counted and logged: the call never
waits for the disk.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ari_app.audio.format import FRAME_MS, SILENT_FRAME, ms_to_bytes
from ari_app.dialog.ports import BotSaid, CallerSaid, Fact
from ari_app.record.cues import Cues
from ari_app.record.events import name_of, values_of, whole
from ari_app.record.folder import CallFolder, FreeSpace, Turn
from ari_app.record.pauses import Pauses
from ari_app.record.seal import Seal
from ari_app.record.wav import StereoAligner, frames_between
from ari_app.record.writer import RecordWriter
from ari_app.texts import clean

logger = logging.getLogger(__name__)

FLUSH_FRAMES = 800 // FRAME_MS
"""The full call grows by so much at a time: with the writer's tick a second, the most that a killed process loses."""
SECOND_BYTES = 2 * ms_to_bytes(1000)
"""Of stereo."""
MAX_FRAMES = 30_000 // FRAME_MS
"""Of each side, waiting for the disk."""
MAX_LINES = 1000
"""Of the event log, waiting for the disk: some minutes of a talkative call."""
MAX_TURNS_BYTES = ms_to_bytes(5 * 60_000)
"""Sound of turns that waits for the disk."""


def recording_directory(root: Path, command: str, started: str, call_id: str) -> Path:
    """Where a call's files go: `<command>_<timestamp>_<call>`; nothing in it comes from the caller."""
    for part in (command, started, call_id):
        if not re.fullmatch(r"[A-Za-z0-9-]+", part):
            raise ValueError(f"not fit for a file name: {part!r}")
    return root / f"{command}_{started}_{call_id}"


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """What all recordings of the process share."""

    system_message: str = ""
    seal: Seal | None = None
    """None: the files can be read by whoever gets at them."""
    min_free_bytes: int = 0
    """With less free on the disk nothing is recorded."""
    free_space: FreeSpace = field(default_factory=FreeSpace)
    writer: RecordWriter = field(default_factory=RecordWriter)


class _Frames:
    """One side's sound on its way to the disk. Filled by the loop, emptied by the writer."""

    def __init__(self, since: float) -> None:
        """`since` (s) is when the recording begins: what was complete before is left out."""
        self._since = since
        self._frames: deque[bytes] = deque()
        self.began_at: float | None = None
        self.lost = 0

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frame: bytes, at: float) -> None:
        if self.began_at is None:
            if frames_between(self._since, at) < 0:
                return
            self.began_at = at
        if len(self._frames) >= MAX_FRAMES:  # the same object again and again: its time costs no memory
            self.lost += 1
            frame = SILENT_FRAME
        self._frames.append(frame)

    def take(self) -> bytes:
        return b"".join([self._frames.popleft() for _ in range(min(len(self._frames), MAX_FRAMES))])


class Recorder:
    """Records one call into a directory of its own (mode 0700, files 0600).

    Nothing here blocks but `close`. The directory is made by the writer: what comes until then waits in memory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: RecorderSettings,
        started_at: float,
        about: Mapping[str, object],
        on_failed: Callable[[str], None] = lambda why: None,
    ) -> None:
        """`started_at` is the loop time that the event log counts from; `about` is its first line. `on_failed` is told
        in any thread, as soon as that is known, why the recording is not whole.

        Raises:
            RuntimeError: the system has no thread left that could write.
        """
        self.directory = directory
        self._folder = CallFolder(
            directory,
            about,
            system_message=settings.system_message,
            seal=settings.seal,
            min_free_bytes=settings.min_free_bytes,
            free_space=settings.free_space,
            on_failed=on_failed,
        )
        self._settings = settings
        self._started_at = started_at
        self._pauses = Pauses()
        self._cues = Cues(started_at)
        self._caller, self._bot = _Frames(started_at), _Frames(started_at)
        self._lines: deque[Mapping[str, Any]] = deque()
        self._turns: deque[Turn] = deque()
        self._frames = 0
        self._now = started_at
        """When the last frame came."""
        self._aligner = StereoAligner(started_at)
        self._on_failed = on_failed
        self._behind = False
        """Sound was lost because the disk took too long."""
        self._finishing = False
        self.dropped = 0
        """Lines and turns that the disk was too slow for."""
        self._written = threading.Event()
        self._context = contextvars.copy_context()  # the log names the call
        settings.writer.add(self)

    # --- on the loop ---------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """The recording is not whole."""
        return self._behind or bool(self._folder.failure)

    @property
    def paused(self) -> bool:
        return self._pauses.paused

    @property
    def written(self) -> bool:
        """All is on the disk, as far as it goes."""
        return self._written.is_set()

    def push_caller(self, frame: bytes, at: float) -> None:
        """One 20 ms frame heard from the caller, complete at `at`."""
        self._frames += 1
        self._now = max(self._now, at)
        self._caller.push(SILENT_FRAME if self.paused else frame, at)
        if self._caller.lost and not self._behind:
            self._fall_behind()

    def push_bot(self, frame: bytes, at: float) -> None:
        """One 20 ms frame as sent to the caller."""
        self._now = max(self._now, at)
        self._bot.push(SILENT_FRAME if self.paused else frame, at)

    def _fall_behind(self) -> None:
        """A disk that does not answer tells nobody: this is found out here."""
        self._behind = True
        why = "the disk does not answer, sound is being lost"
        logger.error("recording %s: %s", self.directory, why)
        if not self._folder.failure:
            self._on_failed(why)

    def pause(self, paused: bool, at: float | None = None) -> None:
        """Keep nothing of what is heard and said from `at` on, or go on; for card numbers and the like."""
        at = self._now if at is None else at
        if self.paused != paused:
            self.note("recording_paused" if paused else "recording_resumed")
        if paused:
            self._pauses.begin(at)
        else:
            self._pauses.end(at)

    def push_fact(self, fact: Fact, at: float | None = None) -> Fact:
        """Record a fact the brain reported at `at`; returns it as anybody may know it."""
        fact = self._pauses.withheld(fact, self._now if at is None else at)
        self.note(name_of(fact), **values_of(fact, self._started_at))
        match fact:
            case CallerSaid():
                self._push_turn("user", "segment", fact, fact.text)
            case BotSaid():
                said = f"{fact.heard} [interrupted]".strip() if fact.interrupted else fact.text
                self._push_turn("assistant", "response", fact, said)
            case _:
                self._cues.push(fact, self._now_ms, "")
        return fact

    def _push_turn(self, role: str, sound: str, fact: CallerSaid | BotSaid, said: str) -> None:
        cue = self._cues.push(fact, self._now_ms, whole(said))
        waiting_bytes = sum(len(turn.pcm) for turn in self._turns.copy())
        if waiting_bytes + len(fact.pcm) <= MAX_TURNS_BYTES and len(self._turns) < MAX_LINES:
            self._turns.append(Turn(role, sound, fact.turn, clean(whole(said)), fact.pcm, cue))
        else:
            self.dropped += 1

    @property
    def _now_ms(self) -> float:
        return self._frames * FRAME_MS

    def note(self, event: str, **values: Any) -> None:
        """Add one line to the event log, stamped with the call's own audio clock."""
        if len(self._lines) < MAX_LINES or event == "ended":
            self._lines.append({"audio_ms": self._now_ms, "event": event, **values})
        else:
            self.dropped += 1

    def finish(self) -> None:
        """Nothing more comes: have the rest written and all files closed. Idempotent."""
        if not self._finishing:
            self._finishing = True
            self._settings.writer.hurry()

    def close(self, timeout_s: float | None = None) -> bool:
        """`finish`, and wait until that is done; False when it takes longer."""
        self.finish()
        return self._written.wait(timeout_s)

    # --- in the writer's thread ----------------------------------------------------------------------

    def write(self) -> bool:
        """Write what is due; True when nothing more will come."""
        return self._context.run(self._write)

    def _write(self) -> bool:
        finishing = self._finishing  # before all else: what came before it is written now
        try:
            self._folder.open()
            self._write_sound(final=finishing)
            while self._turns:
                self._folder.add_turn(self._turns.popleft())
            self._write_lines()
        except Exception as error:  # a fault of ours must not cost the other recordings theirs
            logger.exception("the fault")
            self._folder.fail(error, "recording %s is given up: %s", self.directory, error)
            finishing = True
        if finishing:
            self._end()
        return finishing

    def _write_sound(self, *, final: bool) -> None:
        while (waiting := max(len(self._caller), len(self._bot))) >= FLUSH_FRAMES or (final and waiting):
            if self._caller.began_at is not None:
                self._aligner.push_left(self._caller.take(), self._caller.began_at)
            if self._bot.began_at is not None:
                self._aligner.push_right(self._bot.take(), self._bot.began_at)
            self._add_sound(self._aligner.take())
        if final:
            self._add_sound(self._aligner.take(final=True))

    def _add_sound(self, pcm: bytes) -> None:
        """A second at a time: where the disk becomes full, as much of it is kept."""
        for start in range(0, len(pcm), SECOND_BYTES):
            self._folder.add_sound(pcm[start : start + SECOND_BYTES])

    def _write_lines(self) -> None:
        """Those that end the record come last, and have to fit whatever happened."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        self._folder.add_lines([line for line in lines if line["event"] != "ended"])
        if self._folder.stopped:
            why = self._folder.take_stopped()
            self._folder.add_lines(
                [{"audio_ms": self._now_ms, "event": "recording_stopped", "reason": why}], last_words=True
            )
        self._folder.add_lines([line for line in lines if line["event"] == "ended"], last_words=True)

    def _end(self) -> None:
        lost_s = max(self._caller.lost, self._bot.lost) * FRAME_MS / 1000
        if lost_s or self.dropped:
            logger.warning(
                "recording %s: the disk was too slow, %.1f s of sound and %d pieces lost",
                *(self.directory, lost_s, self.dropped),
            )
        self._folder.close()
        self._written.set()

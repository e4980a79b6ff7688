"""What a call leaves behind: transcripts, WAV files and `events.jsonl`, written as the call goes. Shell.

The media path and the dialog only append to memory; one thread per recorded call does the writing, fed by a
bounded queue. When the disk stands still for minutes, audio is replaced by silence of the same length and
events are dropped, both counted and logged: the call never waits for the disk.
"""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import json
import logging
import os
import queue
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ari_app.audio.format import FRAME_MS, SILENT_FRAME, ms_to_bytes
from ari_app.dialog.ports import BotSaid, BotSpeechStarted, CallerSaid, CallerSpeechStarted, Fact
from ari_app.record.cues import HEADER, Cues
from ari_app.record.events import name_of, values_of
from ari_app.record.files import SEALED_SUFFIX, Output, Seal, create, write_once
from ari_app.record.wav import GrowingWav, StereoAligner, write_wav
from ari_app.texts import clean, escaped

logger = logging.getLogger(__name__)

FLUSH_BYTES = 2 * ms_to_bytes(1000)
"""The full-call file grows by a second of stereo at a time: the most that a killed process loses."""
MAX_JOBS = 240
"""About two minutes of a talkative call."""
WITHHELD = "[not recorded]"
"""Stands for what is said while the recording is paused."""
LOCK_NAME = ".recording"
"""Locked for as long as the call lasts, so that nobody tidies it away."""


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


class Recorder:
    """Records one call into a directory of its own (mode 0700, files 0600).

    `push_*` and `note` never block. `close` waits for the writer, so call it off the event loop.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: RecorderSettings,
        started_at: float,
        about: Mapping[str, object],
    ) -> None:
        """`started_at` is the loop time that the event log counts from; `about` is its first line.

        Raises:
            OSError: the disk does not take it, or is nearly full.
        """
        directory.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._min_free_bytes = settings.min_free_bytes
        _require_space(directory.parent, settings.min_free_bytes)
        directory.mkdir(mode=0o700)
        self.directory = directory
        self._seal = settings.seal
        self._started_at = started_at
        self.dropped_jobs = 0
        self.paused = False
        self._withheld_ms = -1.0
        """Until when nothing was recorded, because somebody paused it."""
        self._speech_ms = self._bot_ms = 0.0
        """When what the caller and the bot say began."""
        self._aligner = StereoAligner(started_at)
        self._stereo = bytearray()
        self._lost_bytes = 0
        self._frames = 0
        self._cues = Cues(started_at)
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_JOBS)
        self._lock_fd = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._outputs: list[Output] = []
        try:
            self._begin(settings.system_message, about)
        except OSError:
            self._close_files()
            shutil.rmtree(directory, ignore_errors=True)
            raise
        # In this call's context, so that the log tells whose recording stopped.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work,),
            name=f"recorder-{directory.name}",
            daemon=True,
        )
        self._thread.start()

    def _begin(self, system_message: str, about: Mapping[str, object]) -> None:
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        self._full_call = GrowingWav(self._create_kept("full_call.wav"), channels=2)
        self._events = self._create_kept("events.jsonl")
        self._transcript = self._create_kept("full_transcript.txt")
        self._subtitles = self._create_kept("full_call.vtt")
        self._subtitles.append(HEADER.encode())
        self._write_block("SYSTEM", system_message)
        self._write_event({"audio_ms": 0, "event": "call", "started": _now(), **about})

    def push_caller(self, frame: bytes, at: float) -> None:
        """One 20 ms frame heard from the caller, complete at `at`."""
        self._frames += 1
        self._aligner.push_left(SILENT_FRAME if self.paused else frame, at)
        self._flush_audio()

    def push_bot(self, frame: bytes, at: float) -> None:
        """One 20 ms frame as sent to the caller."""
        self._aligner.push_right(SILENT_FRAME if self.paused else frame, at)
        self._flush_audio()

    def pause(self, paused: bool) -> None:
        """Keep nothing of what is heard and said from now on, or go on; for card numbers and the like."""
        if self.paused != paused:
            self.note("recording_paused" if paused else "recording_resumed")
            self.paused = paused
            self._withheld_ms = self._now_ms

    def push_fact(self, fact: Fact) -> None:
        """Record a fact the brain reported."""
        match fact:
            case CallerSpeechStarted(onset_at=onset_at):
                self._speech_ms = (onset_at - self._started_at) * 1000
            case BotSpeechStarted(at=at):
                self._bot_ms = (at - self._started_at) * 1000
            case CallerSaid() if self._is_withheld(self._speech_ms):
                fact = replace(fact, text=WITHHELD, pcm=b"")
            case BotSaid() if self._is_withheld(self._bot_ms):
                fact = replace(fact, text=WITHHELD, heard=WITHHELD if fact.heard else "", pcm=b"")
        values = values_of(fact, self._started_at)
        if "words" in values and self._is_withheld(self._speech_ms):
            values["words"] = WITHHELD
        self.note(name_of(fact), **values)
        if isinstance(fact, CallerSaid):
            self._submit_turn("user", "segment", fact, fact.text)
        elif isinstance(fact, BotSaid):
            said = f"{fact.heard} [interrupted]".strip() if fact.interrupted else fact.text
            self._submit_turn("assistant", "response", fact, said)
        else:
            self._cues.push(fact, self._now_ms, "")

    def _submit_turn(self, role: str, sound: str, fact: CallerSaid | BotSaid, said: str) -> None:
        cue = self._cues.push(fact, self._now_ms, said)
        turn, pcm = fact.turn, fact.pcm
        self._submit(lambda: self._write_turn(role, sound, turn, clean(said), pcm, cue))

    def _is_withheld(self, began_ms: float) -> bool:
        return self.paused or began_ms < self._withheld_ms

    @property
    def _now_ms(self) -> float:
        return self._frames * FRAME_MS

    def note(self, event: str, **values: Any) -> None:
        """Add one line to the event log, stamped with the call's own audio clock."""
        line = {"audio_ms": self._now_ms, "event": event, **values}
        self._submit(lambda: self._write_event(line))

    def close(self) -> None:
        """Write what is left and close all files; idempotent."""
        if not self._thread.is_alive():
            return
        self._stereo += self._aligner.take(final=True)
        self._jobs.put(self._audio_job())
        self._jobs.put(None)
        self._thread.join()
        if self.dropped_jobs:
            logger.warning(
                "recording %s: the disk was too slow, %d pieces lost", self.directory, self.dropped_jobs
            )

    # --- event loop side -----------------------------------------------------------------------------

    def _flush_audio(self) -> None:
        if 2 * self._aligner.ready_bytes < FLUSH_BYTES:
            return
        self._stereo += self._aligner.take()
        length = len(self._stereo)
        if self._submit(self._audio_job()):
            self._lost_bytes = 0
        else:
            self._lost_bytes += length
        self._stereo.clear()

    def _audio_job(self) -> Callable[[], None]:
        lost_bytes, pcm = self._lost_bytes, bytes(self._stereo)

        def write() -> None:
            _require_space(self.directory, self._min_free_bytes)
            self._full_call.write(bytes(lost_bytes) + pcm)

        return write

    def _submit(self, job: Callable[[], None]) -> bool:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.dropped_jobs += 1
            return False
        return True

    # --- writer thread -------------------------------------------------------------------------------

    def _work(self) -> None:
        failed = False
        while (job := self._jobs.get()) is not None:
            if failed:
                continue
            try:
                job()
            except OSError as error:  # disk full or gone: the call goes on without its recording
                failed = True
                logger.error("recording %s stopped: %s", self.directory, error)
            except Exception:  # a fault of ours costs this piece, and never the closing of the files
                logger.exception("recording %s: a piece is lost", self.directory)
        with contextlib.suppress(OSError):
            self._full_call.close()
        self._close_files()

    def _close_files(self) -> None:
        for file in self._outputs:
            with contextlib.suppress(OSError):
                file.close()
        with contextlib.suppress(OSError):
            (self.directory / LOCK_NAME).unlink()
        os.close(self._lock_fd)

    def _create_kept(self, name: str) -> Output:
        """A file that grows with the call."""
        self._outputs.append(self._create(name))
        return self._outputs[-1]

    def _create(self, name: str) -> Output:
        return create(self.directory / name, self._seal)

    def _write_event(self, line: Mapping[str, Any]) -> None:
        self._events.append(escaped(json.dumps(line, ensure_ascii=False)).encode() + b"\n")

    def _write_block(self, speaker: str, text: str) -> None:
        self._transcript.append(_utf8(f"{speaker}: {text}\n\n"))

    def _write_turn(self, role: str, sound: str, turn: int, text: str, pcm: bytes, cue: str) -> None:
        self._write_block(role.upper(), text)
        self._subtitles.append(_utf8(cue))
        write_once(self._create(self._unused(f"transcript_{turn:03d}_{role}", ".txt")), _utf8(f"{text}\n"))
        if pcm:
            write_wav(self._create(self._unused(f"{sound}_{turn:03d}", ".wav")), pcm)

    def _unused(self, stem: str, suffix: str) -> str:
        """A name with a number when one turn has several responses (an answer and then an apology)."""
        name, count = f"{stem}{suffix}", 1
        while any((self.directory / (name + end)).exists() for end in ("", SEALED_SUFFIX)):
            count += 1
            name = f"{stem}_{count}{suffix}"
        return name


def _require_space(directory: Path, min_free_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < min_free_bytes:
        raise OSError(
            f"only {free_bytes // 1_000_000} MB are free on the disk of {directory}, "
            f"and RECORDINGS_MIN_FREE_MB keeps {min_free_bytes // 1_000_000}"
        )


def _utf8(text: str) -> bytes:
    """Half a character, as a model's stream may end with, becomes a question mark."""
    return text.encode(errors="replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""What a call leaves behind: transcripts, WAV files and `events.jsonl`, written as the call goes. Shell.

The media path and the dialog only append to memory; one thread per recorded call does the writing, fed by a
bounded queue. When the disk stands still for minutes, audio is replaced by silence of the same length and
events are dropped, both counted and logged: the call never waits for the disk.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

from ari_app.audio.format import FRAME_MS, ms_to_bytes
from ari_app.dialog.ports import BotSaid, CallerSaid, Fact
from ari_app.record.wav import GrowingWav, StereoAligner, private_opener, write_wav

logger = logging.getLogger(__name__)

FLUSH_BYTES = 2 * ms_to_bytes(1000)
"""The full-call file grows by a second of stereo at a time: the most that a killed process loses."""
MAX_JOBS = 240
"""About two minutes of a talkative call."""


def recording_directory(root: Path, command: str, started: str, call_id: str) -> Path:
    """Where a call's files go: `<command>_<timestamp>_<call>`; nothing in it comes from the caller."""
    for part in (command, started, call_id):
        if not re.fullmatch(r"[A-Za-z0-9-]+", part):
            raise ValueError(f"not fit for a file name: {part!r}")
    return root / f"{command}_{started}_{call_id}"


class Recorder:
    """Records one call into a directory of its own (mode 0700, files 0600).

    `push_*` and `note` never block. `close` waits for the writer, so call it off the event loop.
    """

    def __init__(self, directory: Path, *, system_message: str, started_at: float) -> None:
        """`started_at` is the loop time that the event log counts from."""
        directory.mkdir(parents=True, mode=0o700)
        self.directory = directory
        self._started_at = started_at
        self.dropped_jobs = 0
        self._aligner = StereoAligner()
        self._stereo = bytearray()
        self._lost_bytes = 0
        self._frames = 0
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_JOBS)
        self._full_call = GrowingWav(directory / "full_call.wav", channels=2)
        self._events = _open_text(directory / "events.jsonl")
        self._transcript = _open_text(directory / "full_transcript.txt")
        self._write_block("SYSTEM", system_message)
        self._thread = threading.Thread(target=self._work, name=f"recorder-{directory.name}", daemon=True)
        self._thread.start()

    def push_caller(self, frame: bytes) -> None:
        """One 20 ms frame heard from the caller."""
        self._frames += 1
        self._aligner.push_left(frame)
        self._flush_audio()

    def push_bot(self, frame: bytes) -> None:
        """One 20 ms frame as sent to the caller."""
        self._aligner.push_right(frame)
        self._flush_audio()

    def push_fact(self, fact: Fact) -> None:
        """Record a fact the brain reported."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(fact).__name__).lower()
        self.note(
            name,
            **{f.name: self._value(f.name, getattr(fact, f.name)) for f in fields(fact) if f.name != "pcm"},
        )
        if isinstance(fact, CallerSaid):
            self._submit(lambda: self._write_turn("user", "segment", fact.turn, fact.text, fact.pcm))
        elif isinstance(fact, BotSaid):
            said = f"{fact.heard} [interrupted]".strip() if fact.interrupted else fact.text
            self._submit(lambda: self._write_turn("assistant", "response", fact.turn, said, fact.pcm))

    def _value(self, name: str, value: Any) -> Any:
        is_time = name == "at" or name.endswith("_at")
        return round(value - self._started_at, 3) if is_time and value is not None else value

    def note(self, event: str, **values: Any) -> None:
        """Add one line to the event log, stamped with the call's own audio clock."""
        line = json.dumps({"audio_ms": self._frames * FRAME_MS, "event": event, **values}, ensure_ascii=False)
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
        self._stereo += self._aligner.take()
        if len(self._stereo) >= FLUSH_BYTES:
            length = len(self._stereo)
            if self._submit(self._audio_job()):
                self._lost_bytes = 0
            else:
                self._lost_bytes += length
            self._stereo.clear()

    def _audio_job(self) -> Callable[[], None]:
        lost_bytes, pcm = self._lost_bytes, bytes(self._stereo)
        return lambda: self._full_call.write(bytes(lost_bytes) + pcm)

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
        for file in (self._full_call, self._events, self._transcript):
            try:
                file.close()
            except OSError as error:
                logger.error("recording %s: %s", self.directory, error)

    def _write_event(self, line: str) -> None:
        self._events.write(line + "\n")
        self._events.flush()

    def _write_block(self, speaker: str, text: str) -> None:
        self._transcript.write(f"{speaker}: {text}\n\n")
        self._transcript.flush()

    def _write_turn(self, role: str, sound: str, turn: int, text: str, pcm: bytes) -> None:
        self._write_block(role.upper(), text)
        with _open_text(_unused(self.directory / f"transcript_{turn:03d}_{role}.txt")) as file:
            file.write(text + "\n")
        if pcm:
            write_wav(_unused(self.directory / f"{sound}_{turn:03d}.wav"), pcm)


def _open_text(path: Path) -> IO[str]:
    return open(path, "x", encoding="utf-8", opener=private_opener)


def _unused(path: Path) -> Path:
    """`path`, or `path` with a number when one turn has several responses (an answer and then an apology)."""
    candidate, count = path, 1
    while candidate.exists():
        count += 1
        candidate = path.with_stem(f"{path.stem}_{count}")
    return candidate

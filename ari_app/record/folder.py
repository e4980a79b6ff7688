"""One call's directory: its files, its lock, and what becomes of them when the disk says no. Shell.

All of it is in the writer's thread. Sound and words stop at the first refusal. The event log goes on, and has room of
its own for its last lines: how a call ended is known even when the disk is full.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ari_app.record.cues import HEADER
from ari_app.record.files import Output, create, write_once
from ari_app.record.seal import SEALED_SUFFIX, Seal
from ari_app.record.wav import GrowingWav, write_wav
from ari_app.texts import escaped

logger = logging.getLogger(__name__)

LOCK_NAME = ".recording"
"""Locked for as long as the call lasts, so that nobody tidies it away, or takes it for one that was cut short."""
EVENTS, AUDIO = "events.jsonl", "full_call.wav"
TRANSCRIPT, SUBTITLES = "full_transcript.txt", "full_call.vtt"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said."""

    role: str
    sound: str
    """Name of its WAV file."""
    number: int
    text: str
    pcm: bytes = field(repr=False)
    cue: str


class FreeSpace:
    """What is free on the disk of all recordings, asked at most once a second.

    Each system call gives the interpreter away, and the event loop waits until it has it back.
    """

    def __init__(
        self,
        ask: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._asked_at = -float("inf")
        self._free_bytes = 0

    def bytes_at(self, folder: Path) -> int:
        """Raises OSError when the disk does not tell."""
        now = self._clock()
        if now - self._asked_at >= 1.0:
            self._free_bytes, self._asked_at = self._ask(folder), now
        return self._free_bytes


class CallFolder:
    """The files of one recording. Nothing here raises for a disk's faults: `failure` says what was wrong first."""

    def __init__(
        self,
        directory: Path,
        about: Mapping[str, object],
        *,
        system_message: str,
        seal: Seal | None,
        min_free_bytes: int,
        free_space: FreeSpace,
        on_failed: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._system_message = system_message
        self._seal = seal
        self._min_free_bytes = min_free_bytes
        self._free_space = free_space
        self._about = {"audio_ms": 0, "event": "call", "started": _now(), **about}
        self._on_failed = on_failed
        self._secret = secrets.token_hex(16)
        self._files = ExitStack()
        """Closes what is open."""
        self._opened = False
        self._events: Output | None = None
        self._full_call: GrowingWav | None = None
        self._transcript: Output | None = None
        self._subtitles: Output | None = None
        self.failure = ""
        """Why the recording is not whole."""
        self._complained = False
        self.stopped = False
        """Sound and words are not kept any more, and the event log does not say so yet."""

    def open(self) -> None:
        """Make the directory; once, whatever becomes of it."""
        if self._opened:
            return
        self._opened = True
        try:
            with ExitStack() as stack:
                self._make(stack)
                self._files = stack.pop_all()
        except Exception as error:  # the call goes on without its recording
            self._events = None
            self.fail(error, "this call is not recorded: %s", error)

    def _make(self, stack: ExitStack) -> None:
        directory = self._directory
        directory.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._require_space(directory.parent)
        directory.mkdir(mode=0o700)
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            lock_fd = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, lock_fd)
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            self._events = self._create(EVENTS)
            undo.callback(self._events.close)
            self._events.append(_line(self._about))
            self._events.has_room(0)
            undo.pop_all()
        stack.callback(self._unlock)
        stack.callback(self._close, self._events)

    def _require_space(self, directory: Path) -> None:
        free_bytes, wanted_bytes = self._free_space.bytes_at(directory), self._min_free_bytes
        if free_bytes < wanted_bytes:
            raise OSError(
                f"only {free_bytes // 1_000_000} MB are free on the disk of {directory}, "
                f"and RECORDINGS_MIN_FREE_MB keeps {wanted_bytes // 1_000_000}"
            )

    def _begin(self) -> GrowingWav:
        """The files that only a conversation has."""
        if self._full_call is None:
            self._full_call = GrowingWav(self._keep(AUDIO), channels=2)
            self._transcript, self._subtitles = self._keep(TRANSCRIPT), self._keep(SUBTITLES)
            self._transcript.append(_block("SYSTEM", self._system_message))
            self._subtitles.append(HEADER.encode())
        return self._full_call

    def _keep(self, name: str) -> Output:
        file = self._create(name)
        self._files.callback(self._close, file)
        return file

    def _create(self, name: str) -> Output:
        return create(self._directory / name, self._seal, self._secret)

    # --- writing -------------------------------------------------------------------------------------

    def add_sound(self, pcm: bytes) -> None:
        """More of the full call, stereo."""
        if not self._goes_on or not pcm:
            return
        try:
            self._require_space(self._directory)
            self._begin().write(pcm)
        except Exception as error:
            self._refused(error)

    def add_turn(self, turn: Turn) -> None:
        """What one side said, where text is kept."""
        if not self._goes_on:
            return
        try:
            self._require_space(self._directory)
            self._begin()
            self._write_turn(turn)
        except Exception as error:
            self._refused(error)

    def add_lines(self, lines: Sequence[Mapping[str, Any]], *, last_words: bool = False) -> None:
        """Lines of the event log; those that are not the `last_words` leave room for them."""
        if self._events is None or not lines:
            return
        try:
            piece = b"".join(map(_line, lines))
            if last_words or self._events.has_room(len(piece)):
                self._events.append(piece)
                return
            refusal: Exception = OSError("no space is left for the event log")
        except Exception as error:
            refusal = error
        if len(lines) == 1:
            self._refused(refusal)
        else:  # one of them may be at fault, or some of them fit
            for line in lines:
                self.add_lines([line], last_words=last_words)

    @property
    def _goes_on(self) -> bool:
        return self._events is not None and not self.failure

    def _refused(self, error: Exception) -> None:
        """The disk's refusal ends it; a fault of ours costs one piece."""
        if isinstance(error, OSError):
            if not self.failure:
                self.stopped = True
                self.fail(error, "recording %s stopped: %s", self._directory, error)
        elif not self._complained:
            self._complained = True
            logger.error("a piece of recording %s is lost", self._directory, exc_info=error)

    def fail(self, error: Exception, message: str, *values: object) -> None:
        """The recording is not whole: say so."""
        self.failure = str(error) or type(error).__name__
        logger.error(message, *values, exc_info=None if isinstance(error, OSError) else error)
        self._on_failed(self.failure)

    def take_stopped(self) -> str:
        """Why sound and words stopped; from now on the event log says so."""
        self.stopped = False
        return self.failure

    def _write_turn(self, turn: Turn) -> None:
        assert self._transcript is not None and self._subtitles is not None
        self._transcript.append(_block(turn.role.upper(), turn.text))
        self._subtitles.append(_encoded(turn.cue))
        name = self._unused(f"transcript_{turn.number:03d}_{turn.role}", ".txt")
        write_once(self._create(name), _encoded(f"{turn.text}\n"))
        if turn.pcm:
            write_wav(self._create(self._unused(f"{turn.sound}_{turn.number:03d}", ".wav")), turn.pcm)

    def _unused(self, stem: str, suffix: str) -> str:
        """A name with a number when one turn has several responses (an answer and then an apology)."""
        name, count = f"{stem}{suffix}", 1
        while any((self._directory / (name + end)).exists() for end in ("", SEALED_SUFFIX)):
            count += 1
            name = f"{stem}_{count}{suffix}"
        return name

    # --- the end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what is open and let go of the lock."""
        self._files.close()

    def _close(self, file: Output) -> None:
        try:
            file.close()
        except OSError as error:
            if not self.failure:
                self.fail(error, "recording %s: %s", self._directory, error)

    def _unlock(self) -> None:
        with contextlib.suppress(OSError):
            (self._directory / LOCK_NAME).unlink()


def goes_on(folder: Path) -> bool:
    """Its recorder holds the lock; the kernel lets go of it however the process ends."""
    try:
        lock_fd = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look don't see each other
    except BlockingIOError:
        return True
    finally:
        os.close(lock_fd)
    return False


def _line(values: Mapping[str, Any]) -> bytes:
    return _encoded(escaped(json.dumps(values, ensure_ascii=False))) + b"\n"


def _block(speaker: str, text: str) -> bytes:
    return _encoded(f"{speaker}: {text}\n\n")


def _encoded(text: str) -> bytes:
    """Half a character, as a model's stream may end with, becomes a question mark."""
    return text.encode(errors="replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

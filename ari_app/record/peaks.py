"""How loud both sides of a recording are, in columns, for a picture. Shell."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ari_app.audio.format import SAMPLE_BYTES
from ari_app.record.wav import HEADER_BYTES

FRAME = 2 * SAMPLE_BYTES
PIECE_FRAMES = 1 << 19


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of each column the loudest sample, 0 to 1."""

    seconds: float
    caller: Any
    bot: Any


def peaks_of(path: Path, columns: int) -> Peaks:
    """Read a recording piece by piece: its length costs time, and no memory.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is none of ours; the text says what it is.
    """
    try:
        with wave.open(str(path)) as sound:
            rate_hz, form = sound.getframerate(), (sound.getnchannels(), sound.getsampwidth())
            if form != (2, SAMPLE_BYTES) or rate_hz <= 0:
                raise ValueError(f"none of ours: {form[0]} channels of {8 * form[1]} bits at {rate_hz} Hz")
            # The header of a recording that was killed may promise more than there is.
            count = min(sound.getnframes(), max(path.stat().st_size - HEADER_BYTES, 0) // FRAME)
            peaks = _read(sound, count, columns)
    except (wave.Error, EOFError, RuntimeError) as error:
        raise ValueError(f"no sound: {error or 'it is empty'}") from None
    return Peaks(count / rate_hz, peaks[:, 0] / 32768, peaks[:, 1] / 32768)


def _read(sound: wave.Wave_read, count: int, columns: int) -> Any:
    """The loudest of each column's frames, for both sides."""
    width = max(min(columns, count), 1)
    peaks = np.zeros((width, 2), np.int32)
    done = 0
    while pcm := sound.readframes(min(PIECE_FRAMES, count - done)):
        whole = len(pcm) // FRAME
        samples = np.abs(np.frombuffer(pcm[: whole * FRAME], "<i2").reshape(-1, 2).astype(np.int32))
        column = np.arange(done, done + whole, dtype=np.int64) * width // count
        if whole:
            edges = np.flatnonzero(np.diff(column, prepend=-1))
            found = np.maximum.reduceat(samples, edges, axis=0)
            peaks[column[edges]] = np.maximum(peaks[column[edges]], found)
        done += whole
        if len(pcm) % FRAME or done >= count:
            break
    return peaks

"""Voice activity by energy: 20 ms frames to four states, with a noise floor that adapts. Core.

state      loud frame                            quiet frame
QUIET      -> STARTING                           stays
STARTING   after `start_frames` in all SPEAKING  -> QUIET: it was a click
SPEAKING   stays                                 -> STOPPING
STOPPING   -> SPEAKING                           after `stop_frames` in all QUIET
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum, auto
from typing import Protocol

import numpy as np

FLOOR_BLOCK_FRAMES = 12
FLOOR_BLOCKS = 10
"""The noise floor is the quietest frame of the last 2.4 s: speech pauses within that, steady noise does not."""
ABOVE_FLOOR_DB = 10.0
QUIET_LINE_DB = 6.0
"""On a line without noise the threshold sinks by so much, for callers who speak softly."""
LOUD_LINE_DB = 20.0
"""On a noisy line it rises by so much at most: beyond that callers shout, or nothing helps."""
HYSTERESIS_DB = 3.0
SILENCE_DBFS = -96.0


class VadState(Enum):
    """Where speech stands."""

    QUIET = auto()
    STARTING = auto()
    SPEAKING = auto()
    STOPPING = auto()


class Vad(Protocol):
    """Any voice activity detector."""

    @property
    def threshold_dbfs(self) -> float:
        """The level below which nothing counts as speech now."""
        ...

    def push(self, frame: bytes, now: float) -> VadState:
        """Take one 20 ms frame of PCM16 at 8 kHz; returns the state after it."""
        ...


def level_dbfs(frame: bytes) -> float:
    """RMS level of PCM16; a full-scale square wave is 0 dBFS, digital silence −96 dBFS."""
    samples = np.frombuffer(frame, "<i2").astype(np.float32)
    power = float(np.dot(samples, samples)) / max(len(samples), 1)
    return max(10 * math.log10(power / 32768**2), SILENCE_DBFS) if power > 0 else SILENCE_DBFS


class EnergyVad:
    """Implements `Vad`. By default 80 ms of sound make speech, and 200 ms without end it."""

    def __init__(
        self, *, threshold_dbfs: float = -40.0, start_frames: int = 4, stop_frames: int = 10
    ) -> None:
        self.state = VadState.QUIET
        self._base_dbfs = threshold_dbfs
        self._start_frames = start_frames
        self._stop_frames = stop_frames
        self._count = 0
        """Frames spent in STARTING or STOPPING."""
        self._block_minima: deque[float] = deque(maxlen=FLOOR_BLOCKS)
        self._block: list[float] = []

    @property
    def threshold_dbfs(self) -> float:
        """The level that counts as speech now."""
        if len(self._block_minima) < FLOOR_BLOCKS:
            return self._base_dbfs
        wanted = min(self._block_minima) + ABOVE_FLOOR_DB
        return min(max(wanted, self._base_dbfs - QUIET_LINE_DB), self._base_dbfs + LOUD_LINE_DB)

    def push(self, frame: bytes, now: float) -> VadState:
        level = level_dbfs(frame)
        sounding = self.state in (VadState.SPEAKING, VadState.STOPPING)
        loud = level > self.threshold_dbfs - (HYSTERESIS_DB if sounding else 0.0)
        self._note_level(level)
        self.state = self._next(loud)
        return self.state

    def _note_level(self, level: float) -> None:
        self._block.append(level)
        if len(self._block) == FLOOR_BLOCK_FRAMES:
            # Digital silence says nothing of the line's noise: it stands in for packets that never came.
            heard = [level for level in self._block if level > SILENCE_DBFS]
            self._block_minima.append(min(heard, default=SILENCE_DBFS))
            self._block.clear()

    def _next(self, loud: bool) -> VadState:
        match self.state, loud:
            case (VadState.QUIET, True):
                self._count = 1
                return VadState.STARTING
            case (VadState.STARTING, True):
                self._count += 1
                return VadState.SPEAKING if self._count >= self._start_frames else VadState.STARTING
            case (VadState.SPEAKING, False):
                self._count = 1
                return VadState.STOPPING
            case (VadState.STOPPING, False):
                self._count += 1
                return VadState.QUIET if self._count >= self._stop_frames else VadState.STOPPING
            case (VadState.SPEAKING | VadState.STOPPING, True):
                return VadState.SPEAKING
        return VadState.QUIET


def make_vad(kind: str, threshold_dbfs: float) -> Vad:
    """The detector of one call: "energy" or "neural", which is loaded while the call begins.

    Raises:
        ImportError: the package of the neural one is not installed.
    """
    energy = EnergyVad(threshold_dbfs=threshold_dbfs)
    if kind == "neural":
        from ari_app.audio.late_vad import LateVad
        from ari_app.audio.neural_vad import NeuralVad  # an extra

        return LateVad(NeuralVad, energy)
    return energy

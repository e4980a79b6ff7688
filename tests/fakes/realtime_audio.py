"""Audio of the fake Realtime server: formats on the wire, the tone it speaks, and its turn detection. Core."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

TONE_HZ = 440.0
TONE_PEAK = 8000
VAD_FRAME_MS = 20
SPEECH_FRAMES = 3
"""Loud frames in a row that make a start of speech."""
SEMANTIC_WINDOW_MS = {"low": 1500, "medium": 800, "auto": 800, "high": 400}
"""Silence after which a turn is taken for complete."""


def rate_hz(kind: str) -> int:
    return 24_000 if kind == "audio/pcm" else 8000


def bytes_per_ms(kind: str) -> int:
    return 48 if kind == "audio/pcm" else 8


def _ulaw(codes: np.ndarray) -> np.ndarray:
    """G.711 table 2a, from code to sample."""
    inverted = ~codes & 0xFF
    magnitude = ((((inverted & 0x0F) << 3) + 0x84) << ((inverted >> 4) & 7)) - 0x84
    return np.where(inverted & 0x80, -magnitude, magnitude)


def _alaw(codes: np.ndarray) -> np.ndarray:
    """G.711 table 1a, from code to sample."""
    toggled = codes ^ 0x55
    segment, mantissa = (toggled >> 4) & 7, toggled & 0x0F
    linear = (mantissa << 4) + 8
    magnitude = np.where(segment == 0, linear, (linear + 0x100) << np.maximum(segment - 1, 0))
    return np.where(toggled & 0x80, magnitude, -magnitude)


_DECODED = {"audio/pcmu": _ulaw(np.arange(256)), "audio/pcma": _alaw(np.arange(256))}


def decode(wire: bytes, kind: str) -> np.ndarray:
    """Bytes of the wire to samples."""
    if kind == "audio/pcm":
        return np.frombuffer(wire[: len(wire) // 2 * 2], "<i2").astype(np.int32)
    return _DECODED[kind][np.frombuffer(wire, np.uint8)]


def encode(samples: np.ndarray, kind: str) -> bytes:
    """Samples to bytes of the wire; for G.711 the code whose sample is nearest."""
    if kind == "audio/pcm":
        return samples.astype("<i2").tobytes()
    table = _DECODED[kind]
    order = np.argsort(table, kind="stable")
    middles = (table[order][1:] + table[order][:-1]) / 2
    return order[np.searchsorted(middles, samples)].astype(np.uint8).tobytes()


def tone(length_ms: float, kind: str, hz: float = TONE_HZ) -> bytes:
    """What the fake speaks, and what a test may speak to it."""
    rate = rate_hz(kind)
    times = np.arange(int(length_ms * rate / 1000)) / rate
    return encode(np.round(TONE_PEAK * np.sin(2 * math.pi * hz * times)), kind)


def silence(length_ms: float, kind: str) -> bytes:
    return encode(np.zeros(int(length_ms * rate_hz(kind) / 1000)), kind)


@dataclass(frozen=True)
class Heard:
    """A finding of the turn detection, on the clock of all audio ever appended."""

    what: Literal["started", "stopped"]
    at_ms: int


class TurnDetector:
    """Energy of 20 ms frames against a threshold; runs on the audio's own clock, however fast it comes."""

    def __init__(self, settings: dict[str, Any], kind: str, clock_ms: float) -> None:
        semantic = settings["type"] == "semantic_vad"
        self._level = 100 + 800 * float(settings.get("threshold", 0.5))
        self._padding_ms = 300 if semantic else settings["prefix_padding_ms"]
        self._silence_ms = (
            SEMANTIC_WINDOW_MS[settings["eagerness"]] if semantic else settings["silence_duration_ms"]
        )
        self._kind = kind
        self._frame_bytes = VAD_FRAME_MS * bytes_per_ms(kind)
        self._rest = b""
        self._clock_ms = clock_ms
        self._loud = 0
        self._quiet_ms = 0.0
        self._floor_ms = clock_ms
        self.speaking = False
        self.speech_ms = 0.0
        """Of the running turn, from its padded start."""

    def push(self, wire: bytes) -> list[Heard]:
        found = []
        self._rest += wire
        while len(self._rest) >= self._frame_bytes:
            frame, self._rest = self._rest[: self._frame_bytes], self._rest[self._frame_bytes :]
            heard = self._frame(decode(frame, self._kind))
            if heard:
                found.append(heard)
        return found

    def end(self) -> None:
        """The turn was committed or cleared by the client."""
        self.speaking = False
        self._loud = 0
        self._floor_ms = self._clock_ms

    def _frame(self, samples: np.ndarray) -> Heard | None:
        self._clock_ms += VAD_FRAME_MS
        loud = math.sqrt(float(np.mean(np.square(samples.astype(float))))) > self._level
        self._loud = self._loud + 1 if loud else 0
        if self.speaking:
            self.speech_ms += VAD_FRAME_MS
            self._quiet_ms = 0.0 if loud else self._quiet_ms + VAD_FRAME_MS
            if self._quiet_ms >= self._silence_ms and not loud:
                self.end()
                return Heard("stopped", round(self._clock_ms))
        elif self._loud >= SPEECH_FRAMES:
            onset_ms = self._clock_ms - SPEECH_FRAMES * VAD_FRAME_MS
            start_ms = max(self._floor_ms, onset_ms - self._padding_ms)
            self.speaking, self._quiet_ms = True, 0.0
            self.speech_ms = self._clock_ms - start_ms
            return Heard("started", round(start_ms))
        return None

"""How much of what we hear is our own voice coming back. Core.

A telephone line returns a part of what is sent, later and softer: a hybrid (ITU-T G.168) within tens of milliseconds,
a loudspeaker phone after up to some hundred. The delay is found by cross-correlating a window of what was received with
the history of what was sent; then the window is explained by a few taps of the sent signal around that delay (least
squares), and what remains is the caller. Nothing is subtracted from the audio: only the decision whether somebody
speaks uses the remainder.

Both directions are counted in samples of the call's own frames, so a delay that once was found holds until the path
changes.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.fft  # numpy itself would load it at its first use, in the middle of a call
from numpy.typing import NDArray

from ari_app.audio.format import FRAME_MS, SILENT_FRAME, TELEPHONE_RATE_HZ
from ari_app.audio.vad import SILENCE_DBFS, Vad, VadState

Samples = NDArray[np.float32]

FRAME_SAMPLES = TELEPHONE_RATE_HZ * FRAME_MS // 1000
WINDOW_FRAMES = 3
WINDOW_SAMPLES = WINDOW_FRAMES * FRAME_SAMPLES
"""Received audio that is looked at: long enough to tell a path from the likeness of two vowels."""
LONGEST_DELAY_SAMPLES = 600 * TELEPHONE_RATE_HZ // 1000
TAPS_BEFORE, TAPS_AFTER = 8, 40
"""The path around its delay: what lies between two samples, and 5 ms of what a hybrid smears."""
FOUND_SHARE = 0.5
"""Of the window's energy: explaining so much makes a delay known."""
DISTORTION, LEAST_DISTORTION = 0.05, 0.03
"""Share of an echo's energy that no taps explain, what a loudspeaker adds: until the line shows its own; at least."""
ABOVE_DISTORTION, LARGEST_SHARE = 4.0, 0.25
"""A remainder of so much more, or of this share of a frame's energy, is a second voice."""
ADAPTATION = 0.1
AUDIBLE_DBFS = -60.0
"""What is sent below this can't come back loud enough to be taken for speech."""
FRESH_FRAMES = 16
_FFT_SAMPLES = 1 << (LONGEST_DELAY_SAMPLES + 2 * WINDOW_SAMPLES - 1).bit_length()


class EchoGuard:
    """One call's. Push every frame of both directions, 20 ms of PCM16 at 8 kHz each, in the order of the call."""

    def __init__(self) -> None:
        self._sent = np.zeros(LONGEST_DELAY_SAMPLES + 2 * WINDOW_SAMPLES, np.float32)
        self._received: deque[bytes] = deque([SILENT_FRAME] * WINDOW_FRAMES, maxlen=WINDOW_FRAMES)
        self._fresh: list[bytes] = []
        """Sent, and not in `_sent` yet."""
        self._sent_total = self._received_total = 0
        """Samples, since the call began."""
        self._audible_until = 0
        """Of `_sent_total`: as far as anything could be heard."""
        self._distortion = DISTORTION
        self._offset: int | None = None
        """Sample n of what was received is explained by sample n + offset of what was sent."""

    @property
    def delay_known(self) -> bool:
        """True once the path was seen."""
        return self._offset is not None

    def push_sent(self, frame: bytes) -> None:
        """A frame that left for the caller."""
        self._fresh.append(frame)
        self._sent_total += FRAME_SAMPLES
        if len(self._fresh) >= FRESH_FRAMES:
            self._take_fresh()

    def push_received(self, frame: bytes) -> None:
        """A frame of the caller."""
        self._received.append(frame)
        self._received_total += FRAME_SAMPLES

    def explains(self, threshold_dbfs: float) -> bool:
        """True when the last received frame is our own voice, and nothing louder than the threshold besides.

        Costs 0.1 to 0.3 ms while there is anything of ours to be heard, and nothing else: ask only for frames that
        are loud.
        """
        self._take_fresh()
        if self._sent_total - self._audible_until > LONGEST_DELAY_SAMPLES:
            return False
        window = np.frombuffer(b"".join(self._received), "<i2").astype(np.float32)
        enough = (1 - FOUND_SHARE) * _energy(window)
        rest = self._rest(window, self._offset)
        if rest is None or _energy(rest) > enough:
            found = self._find(window)
            other = self._rest(window, found)
            if other is not None and _energy(other) < enough:
                self._offset, rest = found, other
        if rest is None:
            return False
        heard, left = _energy(window[-FRAME_SAMPLES:]), _energy(rest[-FRAME_SAMPLES:])
        own = left < min(ABOVE_DISTORTION * self._distortion, LARGEST_SHARE) * heard
        if own:
            seen = max(left / heard, LEAST_DISTORTION)
            self._distortion += ADAPTATION * (seen - self._distortion)
        return own or _dbfs(left / FRAME_SAMPLES) < threshold_dbfs

    def _take_fresh(self) -> None:
        if not self._fresh:
            return
        fresh = np.frombuffer(b"".join(self._fresh), "<i2").astype(np.float32)
        self._fresh.clear()
        if _dbfs(float(fresh @ fresh) / len(fresh)) > AUDIBLE_DBFS:
            self._audible_until = self._sent_total
        self._sent = np.concatenate((self._sent, fresh))[-len(self._sent) :]

    def _find(self, window: Samples) -> int | None:
        """The offset at which what was sent resembles the window most."""
        spectrum = np.fft.rfft(self._sent, _FFT_SAMPLES) * np.conj(np.fft.rfft(window, _FFT_SAMPLES))
        places = len(self._sent) - WINDOW_SAMPLES + 1
        likeness = np.fft.irfft(spectrum, _FFT_SAMPLES)[:places]
        power = np.concatenate(([0.0], np.cumsum(self._sent.astype(np.float64) ** 2)))
        energy = power[WINDOW_SAMPLES:] - power[:-WINDOW_SAMPLES]
        loudest = float(energy.max())
        if loudest <= 0:
            return None
        place = int((likeness**2 / (energy + 1e-3 * loudest)).argmax())
        return place - self._place(0)

    def _place(self, offset: int) -> int:
        """Where in `_sent` the audio lies that the window would be an echo of."""
        return offset + (self._received_total - WINDOW_SAMPLES) - (self._sent_total - len(self._sent))

    def _rest(self, window: Samples, offset: int | None) -> Samples | None:
        """What remains of the window when the taps around the offset explain what they can; None: no such audio."""
        if offset is None:
            return None
        begin, end = self._place(offset) - TAPS_AFTER, self._place(offset) + WINDOW_SAMPLES + TAPS_BEFORE
        if begin < 0 or end > len(self._sent):
            return None
        taps = np.lib.stride_tricks.sliding_window_view(self._sent[begin:end], WINDOW_SAMPLES)
        square = taps @ taps.T
        square[np.diag_indices_from(square)] += 1e-4 * np.trace(square) / len(square) + 1.0
        rest: Samples = window - (np.linalg.solve(square, taps @ window) @ taps).astype(np.float32)
        return rest


class SpeechDetector:
    """Says of each frame of the caller whether it is speech: a voice activity detector behind an echo guard."""

    def __init__(self, vad: Vad) -> None:
        self._vad = vad
        self._guard = EchoGuard()

    def push_sent(self, frame: bytes) -> None:
        """A frame that left for the caller."""
        self._guard.push_sent(frame)

    def push(self, frame: bytes, now: float) -> bool:
        """A frame of the caller; True when it is theirs and speech."""
        self._guard.push_received(frame)
        sounds = self._vad.push(frame, now) in (VadState.STARTING, VadState.SPEAKING)
        return sounds and not self._guard.explains(self._vad.threshold_dbfs)


def _energy(samples: Samples) -> float:
    return float(samples @ samples)


def _dbfs(power: float) -> float:
    return max(10 * math.log10(power / 32768**2), SILENCE_DBFS) if power > 0 else SILENCE_DBFS

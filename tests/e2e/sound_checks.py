"""What end-to-end tests assert on sound: it arrives whole, without gaps and clicks, and stops when interrupted.

Arrays are float64 samples in the range of PCM16, 8 kHz; a frame is 160 samples (20 ms).
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np

Samples = np.ndarray[Any, np.dtype[np.float64]]

FRAME = 160
SAMPLES_PER_MS = 8
SPEECH_RMS = 100
"""A frame above this (-50 dBFS) is speech."""
PAUSE_FRAMES = 7
"""What the voice leaves between two sentences is longer than this many frames of zeros; a lost frame is not."""
G711_ERROR = 0.06
"""µ-law has 16 steps per octave: a step is at most a 16th of the sample (plus its bias of 132 at 16 bits)."""
G711_BIAS = 132
CLICK = 1.75
"""Sample jump over the largest other jump in the 40 ms around: up to 1.35 in Pico's speech."""
LOUD_JUMP = 1500
"""Smaller jumps are not heard as clicks."""


def read_wav(path: Path) -> Samples:
    """All samples, shape (length, channels)."""
    with wave.open(str(path)) as file:
        assert file.getframerate() == 8000
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return pcm.reshape(-1, file.getnchannels()).astype(np.float64)


def speech_frames(sound: Samples) -> list[int]:
    """Indices of the frames with speech."""
    frames = sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME)
    return [int(i) for i in np.flatnonzero(np.sqrt(np.square(frames).mean(axis=1)) > SPEECH_RMS)]


def speech_stretches(sound: Samples) -> list[tuple[int, int]]:
    """First and last frame of each stretch of speech; pauses within are at most 600 ms."""
    stretches: list[tuple[int, int]] = []
    for i in speech_frames(sound):
        if stretches and i - stretches[-1][1] <= 30:
            stretches[-1] = (stretches[-1][0], i)
        else:
            stretches.append((i, i))
    return stretches


def assert_arrived_whole(sent: Samples, received: Samples) -> None:
    """Each stretch of speech is in `received`, at one lag from first to last frame, within the error of G.711."""
    stretches = speech_stretches(sent)
    assert stretches, "no speech was sent"
    for first, last in stretches:
        stretch = sent[first * FRAME : (last + 1) * FRAME]
        lag = _position(stretch, received)
        got = received[lag : lag + len(stretch)]
        error = np.abs(got - stretch) / (np.abs(stretch) + G711_BIAS)
        worst = error.reshape(-1, FRAME).max(axis=1)
        bad = [int(i) + first for i in np.flatnonzero(worst > G711_ERROR)]
        assert not bad, (
            f"frames {bad} of the stretch {first}-{last} arrived differently, by {worst.max():.2f}"
        )


def _position(part: Samples, whole: Samples) -> int:
    """Where `part` fits best into `whole`, by cross-correlation."""
    size = 1 << (len(part) + len(whole)).bit_length()
    product = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(part, size)), size)
    return int(np.argmax(product[: len(whole) - len(part) + 1]))


def assert_no_gap_and_no_click(sound: Samples) -> None:
    """Nothing as a lost frame would leave it: some frames of zeros, or a jump far beyond the level around."""
    gaps = [(at, length) for at, length in zero_runs(sound) if 1 <= length / FRAME < PAUSE_FRAMES]
    assert not gaps, f"gaps of zeros (sample, length): {gaps}"
    jumps = np.abs(np.diff(sound))
    around = np.lib.stride_tricks.sliding_window_view(np.pad(jumps, FRAME), 2 * FRAME + 1)
    before, after = around[:, : FRAME - 2].max(axis=1), around[:, FRAME + 3 :].max(axis=1)
    clicks = np.flatnonzero((jumps > LOUD_JUMP) & (jumps > CLICK * np.maximum(before, after)))
    assert len(clicks) == 0, f"clicks at samples {clicks.tolist()}"
    for at, length in zero_runs(sound):  # speech cut off at its height, on either side of a silence
        edges = sound[[max(at - 1, 0), min(at + length, len(sound) - 1)]]
        assert length < FRAME // 2 or np.abs(edges).max() < LOUD_JUMP, f"speech is cut off at sample {at}"


def zero_runs(sound: Samples) -> list[tuple[int, int]]:
    """Start and length of each run of zeros between other samples."""
    padded = np.concatenate(([False], sound == 0, [False]))
    runs = np.flatnonzero(np.diff(padded)).reshape(-1, 2)
    return [(int(a), int(b - a)) for a, b in runs if a > 0 and b < len(sound)]


def assert_sent_as_spoken(response: Samples, sent: Samples) -> None:
    """The response left sample by sample, in one piece."""
    assert sent.astype("<i2").tobytes().find(response.astype("<i2").tobytes()) >= 0


def barge_in_delay_ms(caller: Samples, bot: Samples) -> float:
    """From the caller's first sound to the bot's last before the caller has finished speaking."""
    onset_frame, last_frame = speech_stretches(caller)[0]
    onset = onset_frame * FRAME + int(np.argmax(np.abs(caller[onset_frame * FRAME :]) > SPEECH_RMS))
    spoken = np.flatnonzero(bot[onset : (last_frame + 1) * FRAME])
    assert len(spoken), "the bot did not speak when the caller began"
    return float(spoken[-1] + 1) / SAMPLES_PER_MS

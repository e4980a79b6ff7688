"""The sound of the RTP loop: frames that can be told apart, and what became of them on the way. Core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ari_app.audio.format import FRAME_BYTES, SAMPLE_BYTES

FRAMES = 100
"""Two seconds."""
LEVEL_DBFS = -20.0
ALIKE = 0.7
"""Correlation from which on a received frame is taken for a sent one; different ones have less than 0.4."""


def make_frames(seed: int) -> list[bytes]:
    """White noise, each frame another; PCM16."""
    samples = np.random.default_rng(seed).standard_normal((FRAMES, FRAME_BYTES // SAMPLE_BYTES))
    samples *= 32768 * 10 ** (LEVEL_DBFS / 20) / np.sqrt((samples**2).mean(axis=1, keepdims=True))
    return [frame.tobytes() for frame in np.clip(np.rint(samples), -32768, 32767).astype("<i2")]


@dataclass(frozen=True, slots=True)
class Heard:
    """One direction of the loop."""

    sent: int
    received: int
    """Sent frames that came back; each counts once."""
    foreign: int
    """Packets that are none of the sent frames."""
    delay_ms: float
    """Median of send to arrival; 0 when nothing came."""
    delay_max_ms: float
    gain_db: float
    """Level of what came against what was sent."""

    @property
    def loss_percent(self) -> float:
        """Of the sent frames."""
        return 100 * (1 - self.received / self.sent)


def compare(
    frames: Sequence[bytes], sent_at: Sequence[float], arrivals: Sequence[tuple[bytes, float]]
) -> Heard:
    """Find each arrival (PCM16 and time) among the sent frames by its sound, so that codecs do not matter."""
    reference = _samples(frames[: len(sent_at)])
    lengths = np.sqrt((reference**2).sum(axis=1))
    delays: dict[int, float] = {}
    gains: list[float] = []
    foreign = 0
    for pcm, at in arrivals:
        heard = _samples([pcm])[0] if len(pcm) == FRAME_BYTES else np.zeros(reference.shape[1])
        length = float(np.sqrt((heard**2).sum()))
        products = reference @ heard / (lengths * (length or 1.0))
        index = int(products.argmax())
        if products[index] < ALIKE:
            foreign += 1
        elif index not in delays:
            delays[index] = (at - sent_at[index]) * 1000
            gains.append(length / float(lengths[index]))
    if not delays:
        return Heard(len(sent_at), 0, foreign, 0.0, 0.0, 0.0)
    return Heard(
        len(sent_at),
        len(delays),
        foreign,
        float(np.median(list(delays.values()))),
        max(delays.values()),
        20 * float(np.log10(np.median(gains))),
    )


def _samples(frames: Sequence[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.frombuffer(b"".join(frames), "<i2").astype(np.float64).reshape(len(frames), -1)

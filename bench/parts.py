"""What the parts of a call cost, each by itself: microseconds of processor time for 20 ms of audio."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import samplerate

from ari_app.audio.codec import pcm16_to_slin, slin_to_pcm16
from ari_app.audio.format import FRAME_BYTES
from ari_app.audio.resample import CONVERTER, StreamResampler
from ari_app.audio.vad import EnergyVad
from ari_app.dialog.turns import TurnSettings, TurnTracker
from ari_app.rtp.pacer import Pacer
from ari_app.rtp.packet import RtpPacket
from ari_app.rtp.receive import PAYLOAD_TYPE_SLIN, ReceiveStream

REPEATS = 2000
ROUNDS = 9


def costs_us() -> dict[str, list[float]]:
    """By part, one sample a round."""
    parts = _parts()
    samples: dict[str, list[float]] = {f"{name}_us": [] for name in parts}
    for _ in range(ROUNDS):
        for name, part in parts.items():
            started = time.process_time()
            for _ in range(REPEATS):
                part()
            samples[f"{name}_us"].append((time.process_time() - started) / REPEATS * 1e6)
    return samples


def _parts() -> dict[str, Callable[[], object]]:
    noise = (np.random.default_rng(1).standard_normal(480) * 3000).astype("<i2").tobytes()
    frame = noise[:FRAME_BYTES]
    down, up = StreamResampler(24_000, 8_000), StreamResampler(8_000, 24_000)
    library = samplerate.Resampler(CONVERTER, channels=1)
    as_floats = np.frombuffer(noise, "<i2").astype(np.float32) / 32768
    vad, tracker, pacer = EnergyVad(), TurnTracker(TurnSettings()), Pacer()
    stream = ReceiveStream(slin_to_pcm16, started_at=0.0)
    stream.lock(("127.0.0.1", 4000))
    count = 0

    def receive() -> object:
        nonlocal count
        count += 1
        packet = RtpPacket(PAYLOAD_TYPE_SLIN, count & 0xFFFF, count * 160 & 0xFFFFFFFF, 7, frame).to_bytes()
        stream.push(packet, ("127.0.0.1", 4000), count * 0.02)
        return stream.take(count * 0.02)

    def send() -> object:
        pacer.play("item", frame)
        return RtpPacket(PAYLOAD_TYPE_SLIN, 1, 1, 7, pcm16_to_slin(pacer.next_frame())).to_bytes()

    return {
        "receive": receive,
        "vad": lambda: vad.push(frame, 0.0),
        "turns": lambda: tracker.push(frame, False, 0.0),
        "send": send,
        "24_to_8_khz": lambda: down.push(noise),
        "8_to_24_khz": lambda: up.push(frame),
        "24_to_8_khz_libsamplerate": lambda: library.process(as_floats, 1 / 3),
    }

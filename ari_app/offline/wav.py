"""WAV files as requests bring them and answers stream them. Core."""

from __future__ import annotations

import io
import wave

import numpy as np

from ari_app.audio.resample import StreamResampler

MIN_S = 0.1
ENDLESS = b"\xff\xff\xff\xff"


def read_wav(data: bytes, rate_hz: int) -> bytes:
    """PCM16 mono at `rate_hz` from a WAV file with 16-bit PCM of any rate and number of channels.

    Raises:
        ValueError: it is not such a file, or shorter than 0.1 s; the text is for the client.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            file_hz, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError):  # the last from its chunk reader, for a false length
        raise ValueError(
            "Invalid file format. Supported formats: ['wav'], with 16-bit PCM; no decoder is included."
        ) from None
    if width != 2 or not 4000 <= file_hz <= 192_000:
        raise ValueError("The WAV file must hold 16-bit PCM at 4 to 192 kHz.")
    samples = np.frombuffer(pcm[: len(pcm) // (2 * channels) * (2 * channels)], "<i2")
    if len(samples) < file_hz * channels * MIN_S:
        raise ValueError(f"Audio file is too short. Minimum audio length is {MIN_S} seconds.")
    if channels > 1:
        samples = samples.reshape(-1, channels).mean(axis=1).astype("<i2")
    resampler = StreamResampler(file_hz, rate_hz)
    return resampler.push(samples.tobytes()) + resampler.flush()


def endless_header(rate_hz: int) -> bytes:
    """A header for a mono stream of unknown length, as OpenAI sends it."""
    header = io.BytesIO()
    with wave.open(header, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(b"")
    data = header.getvalue()
    return data[:4] + ENDLESS + data[8:40] + ENDLESS

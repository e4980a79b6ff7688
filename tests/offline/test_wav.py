from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.offline.wav import endless_header, read_wav


def wav_file(samples: np.ndarray[tuple[int, ...], np.dtype[np.int16]], rate_hz: int, width: int = 2) -> bytes:
    """A WAV file of samples in the shape (frames, channels)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def tone(
    rate_hz: int, channels: int = 1, seconds: float = 0.5
) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    wave_form = 8000 * np.sin(2 * np.pi * 440 * np.arange(int(rate_hz * seconds)) / rate_hz)
    return np.tile(wave_form.astype(np.int16)[:, None], (1, channels))


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_become_mono_at_the_rate_asked_for(rate_hz: int, channels: int) -> None:
    pcm = read_wav(wav_file(tone(rate_hz, channels), rate_hz), 16_000)
    samples = np.frombuffer(pcm, "<i2")
    assert abs(len(samples) - 8000) <= 80
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(np.argmax(spectrum) * 16_000 / len(samples) - 440) < 4
    assert 7000 < np.abs(samples[2000:6000]).max() < 8500


def test_our_own_endless_stream_can_be_read_back() -> None:
    samples = tone(16_000)
    assert read_wav(endless_header(16_000) + samples.tobytes(), 16_000) == samples.tobytes()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Supported formats: ['wav']"),
        (b"ID3\x04" + bytes(500), "Supported formats: ['wav']"),
        (wav_file(tone(16_000), 16_000)[:30], "Supported formats: ['wav']"),
        (wav_file(tone(16_000), 16_000, width=1), "16-bit PCM"),
        (wav_file(tone(2000), 2000), "4 to 192 kHz"),
        (wav_file(tone(16_000, seconds=0.09), 16_000), "Minimum audio length is 0.1 seconds"),
    ],
)
def test_what_it_cannot_read_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_wav(data, 16_000)
    assert said in str(caught.value)


@given(cut=st.integers(0, 6000), start=st.integers(0, 60), junk=st.binary(max_size=8))
def test_damaged_files_raise_nothing_else(cut: int, start: int, junk: bytes) -> None:
    data = bytearray(wav_file(tone(8000, seconds=0.3), 8000)[:cut])
    data[start : start + len(junk)] = junk
    try:
        pcm = read_wav(bytes(data), 8000)
    except ValueError:
        return
    assert len(pcm) % 2 == 0

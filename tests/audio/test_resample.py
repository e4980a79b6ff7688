"""The resampler as a stream: joins, length, aliases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_app.audio.resample import StreamResampler, resample

RATES = [
    (24000, 8000),
    (22050, 8000),
    (48000, 8000),
    (16000, 8000),
    (8000, 16000),
    (8000, 24000),
    (16000, 24000),
]


def tone(hz: float, rate_hz: int, seconds: float, level: float = 10000) -> bytes:
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    return np.rint(level * np.sin(2 * np.pi * hz * t)).astype("<i2").tobytes()


def convert(pcm: bytes, rates: tuple[int, int], chunks: list[int]) -> np.ndarray:
    """All of `pcm`, in chunks of so many samples, over and over."""
    resampler = StreamResampler(*rates)
    out, at, turn = b"", 0, 0
    while at < len(pcm):
        size = 2 * chunks[turn % len(chunks)]
        out += resampler.push(pcm[at : at + size])
        at, turn = at + size, turn + 1
    return np.frombuffer(out + resampler.flush(), "<i2").astype(float)


@pytest.mark.parametrize("rates", RATES)
@settings(max_examples=15)
@given(chunks=st.lists(st.integers(1, 1500), min_size=1, max_size=6))
def test_how_the_stream_is_cut_does_not_matter(rates: tuple[int, int], chunks: list[int]) -> None:
    pcm = tone(440, rates[0], 0.1)
    whole = convert(pcm, rates, [len(pcm)])
    cut = convert(pcm, rates, chunks)
    assert len(cut) == len(whole)
    assert np.abs(cut - whole).max() <= 1


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("samples", [0, 1, 2, 3, 100, 480, 12345])
def test_nothing_is_missing_after_the_flush(rates: tuple[int, int], samples: int) -> None:
    out = convert(tone(300, rates[0], 1)[: 2 * samples], rates, [333])
    given_samples = min(samples, rates[0])
    assert abs(len(out) - given_samples * rates[1] / rates[0]) <= 1


@pytest.mark.parametrize("rates", RATES)
def test_the_tone_stays_itself_from_first_to_last_sample(rates: tuple[int, int]) -> None:
    """Same level, same place in time, and no step anywhere: what differs from the ideal is 60 dB below."""
    n = np.arange(rates[0] // 2)
    fade = np.clip(np.minimum(n, rates[0] // 2 - n) / (rates[0] * 0.02), 0, 1)
    source = (np.frombuffer(tone(440, rates[0], 0.5), "<i2") * fade).astype("<i2").tobytes()
    out = convert(source, rates, [7, 160, 1, 441])
    t = np.arange(len(out)) / rates[1]
    ideal = 10000 * np.sin(2 * np.pi * 440 * t) * np.clip(np.minimum(t, 0.5 - t) / 0.02, 0, 1)
    assert np.abs(out - ideal).max() < 20


@pytest.mark.parametrize("hz", [4800, 5500, 7000, 9100, 11000])
def test_what_the_telephone_cannot_carry_does_not_fold_back(hz: float) -> None:
    out = convert(tone(hz, 24000, 1), (24000, 8000), [960])[400:-400]
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out)))) / (len(out) / 4)
    assert 20 * np.log10(max(spectrum.max(), 1e-3) / 10000) < -60


@pytest.mark.parametrize("hz", [300, 1000, 2000, 3000, 3400])
def test_the_telephone_band_passes_unchanged(hz: float) -> None:
    out = convert(tone(hz, 24000, 1), (24000, 8000), [960])[400:-400]
    level_db = 20 * np.log10(np.sqrt(2 * np.mean(out**2)) / 10000)
    assert abs(level_db) < 0.5


def test_full_scale_does_not_wrap_around() -> None:
    square = (np.where(np.arange(24000) // 40 % 2, 32767, -32768)).astype("<i2")
    out = convert(square.tobytes(), (24000, 8000), [480])
    middle = np.frombuffer(square.tobytes(), "<i2").astype(float)[20::40]
    for index, level in enumerate(middle[1:-1], start=1):
        assert np.sign(out[round((index * 40 + 20) / 3)]) == np.sign(level)


def test_equal_rates_pass_untouched() -> None:
    resampler = StreamResampler(8000, 8000)
    assert resampler.push(b"\x01\x02\x03\x04") + resampler.flush() == b"\x01\x02\x03\x04"


def test_after_the_flush_a_new_stream_begins() -> None:
    resampler = StreamResampler(24000, 8000)
    sound = tone(440, 24000, 0.1)
    first = resampler.push(sound) + resampler.flush()
    assert resampler.push(sound) + resampler.flush() == first


def test_in_one_go_it_is_the_same() -> None:
    sound = tone(440, 24000, 0.1)
    resampler = StreamResampler(24000, 8000)
    assert resample(sound, 24000, 8000) == resampler.push(sound) + resampler.flush()

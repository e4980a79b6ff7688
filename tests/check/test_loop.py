"""What became of the loop's frames on their way: loss, delay, level, codecs, strangers."""

from __future__ import annotations

import numpy as np
import pytest

from ari_app.audio.codec import pcm16_to_ulaw, ulaw_to_pcm16
from ari_app.audio.format import FRAME_BYTES
from ari_app.check.loop import FRAMES, LEVEL_DBFS, compare, make_frames

SENT = make_frames(1)
SENT_AT = [10 + 0.02 * index for index in range(FRAMES)]


def arriving(delay_s: float = 0.005) -> list[tuple[bytes, float]]:
    """All frames as sent, so much later."""
    return [(frame, at + delay_s) for frame, at in zip(SENT, SENT_AT, strict=True)]


def scaled(frame: bytes, db: float) -> bytes:
    return np.rint(np.frombuffer(frame, "<i2") * 10 ** (db / 20)).astype("<i2").tobytes()


def test_frames_have_the_stated_level_and_none_is_like_another() -> None:
    samples = np.array([np.frombuffer(frame, "<i2") for frame in SENT + make_frames(2)], float)
    levels = 20 * np.log10(np.sqrt((samples**2).mean(axis=1)) / 32768)
    assert np.allclose(levels, LEVEL_DBFS, atol=0.1)
    alike = np.corrcoef(samples) - np.eye(len(samples))
    assert np.abs(alike).max() < 0.4


def test_what_comes_as_it_was_sent() -> None:
    heard = compare(SENT, SENT_AT, arriving(0.005))
    assert (heard.sent, heard.received, heard.foreign, heard.loss_percent) == (FRAMES, FRAMES, 0, 0)
    assert heard.delay_ms == pytest.approx(5) and heard.delay_max_ms == pytest.approx(5)
    assert heard.gain_db == pytest.approx(0, abs=0.01)


def test_nothing_comes() -> None:
    heard = compare(SENT, SENT_AT, [])
    assert (heard.received, heard.foreign, heard.loss_percent) == (0, 0, 100)
    assert (heard.delay_ms, heard.delay_max_ms, heard.gain_db) == (0, 0, 0)


def test_lost_frames_are_counted_and_spoil_no_delay() -> None:
    heard = compare(SENT, SENT_AT, [a for i, a in enumerate(arriving()) if i % 4])
    assert heard.received == 75 and heard.loss_percent == 25
    assert heard.delay_max_ms == pytest.approx(5)


def test_one_late_frame_is_the_longest_delay_and_not_the_median() -> None:
    arrivals = arriving(0.005)
    arrivals[50] = (SENT[50], SENT_AT[50] + 0.3)
    heard = compare(SENT, SENT_AT, sorted(arrivals, key=lambda arrival: arrival[1]))
    assert heard.delay_ms == pytest.approx(5) and heard.delay_max_ms == pytest.approx(300)
    assert heard.received == FRAMES


@pytest.mark.parametrize("db", [-12.0, -3.0, 6.0])
def test_level(db: float) -> None:
    heard = compare(SENT, SENT_AT, [(scaled(frame, db), at) for frame, at in arriving()])
    assert heard.received == FRAMES
    assert heard.gain_db == pytest.approx(db, abs=0.1)


def test_a_codec_on_the_way_does_not_hide_the_frames() -> None:
    coded = [(ulaw_to_pcm16(pcm16_to_ulaw(frame)), at) for frame, at in arriving()]
    assert all(got != sent for (got, _), sent in zip(coded, SENT, strict=True)), "µ-law changes samples"
    heard = compare(SENT, SENT_AT, coded)
    assert (heard.received, heard.foreign) == (FRAMES, 0)
    assert heard.gain_db == pytest.approx(0, abs=0.1)


def test_strangers_are_not_taken_for_ours() -> None:
    strangers = [(frame, 11.0) for frame in make_frames(3)[:7]]
    strangers += [(bytes(FRAME_BYTES), 11.0), (SENT[0][:-2], 11.0), (b"", 11.0), (b"\1", 11.0)]
    heard = compare(SENT, SENT_AT, arriving() + strangers)
    assert (heard.received, heard.foreign) == (FRAMES, 11)
    assert heard.delay_max_ms == pytest.approx(5)


def test_what_comes_twice_counts_once_and_with_its_first_arrival() -> None:
    heard = compare(SENT, SENT_AT, arriving(0.005) + arriving(0.1))
    assert (heard.received, heard.foreign, heard.loss_percent) == (FRAMES, 0, 0)
    assert heard.delay_max_ms == pytest.approx(5)


def test_only_what_was_sent_before_the_end_counts() -> None:
    heard = compare(SENT, SENT_AT[:10], arriving()[:10])
    assert (heard.sent, heard.received) == (10, 10)

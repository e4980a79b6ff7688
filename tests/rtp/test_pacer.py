"""Playout: what leaves, what was heard, and when."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_app.dialog.ports import ItemFinished, ItemStarted
from ari_app.rtp.pacer import MAX_BURST_FRAMES, MAX_QUEUED_BYTES, REMEMBERED_ITEMS, FrameClock, Pacer

FRAME = 320
SILENCE = bytes(FRAME)
RAMP = 80
"""5 ms."""


def speech(length_bytes: int, first: int = 1000) -> bytes:
    return np.arange(first, first + length_bytes // 2, dtype="<i2").tobytes()


def drain(pacer: Pacer, frames: int = 500) -> list[bytes]:
    """The frames until the pacer has nothing more to say."""
    out = []
    for _ in range(frames):
        if not pacer.speaking:
            break
        out.append(pacer.next_frame())
    return out


def test_nothing_to_say_is_silence() -> None:
    pacer = Pacer()
    assert pacer.next_frame() == SILENCE
    assert not pacer.speaking and pacer.take_marks() == []


@given(st.lists(st.lists(st.integers(0, 700), max_size=8), min_size=1, max_size=5))
def test_all_that_is_given_leaves_in_order_however_it_is_cut(items: list[list[int]]) -> None:
    pacer = Pacer()
    given_pcm: dict[str, bytes] = {}
    for number, chunks in enumerate(items):
        item_id = f"i{number}"
        given_pcm[item_id] = speech(2 * sum(chunks), first=1 + 1000 * number)
        at = 0
        for samples in chunks:
            pacer.play(item_id, given_pcm[item_id][at : at + 2 * samples])
            at += 2 * samples
        pacer.finish(item_id)
    frames = drain(pacer)
    expected = b"".join(pcm.ljust(-(-len(pcm) // FRAME) * FRAME, b"\0") for pcm in given_pcm.values())
    out = b"".join(frames)
    assert out.startswith(expected)
    assert len(out) - len(expected) <= FRAME, "an item without audio at the end takes a frame to be noticed"
    assert all(len(frame) == FRAME for frame in frames)
    finished = [mark for mark in pacer.take_marks() if isinstance(mark, ItemFinished)]
    assert [(mark.item_id, mark.played_ms) for mark in finished] == [
        (item_id, len(pcm) / 16) for item_id, pcm in given_pcm.items()
    ]
    assert all(pacer.played_ms(item_id) == len(pcm) / 16 for item_id, pcm in given_pcm.items())


Step = tuple[str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["play", "finish", "clear", "frame", "frame", "frame"]), st.integers(0, 500)),
    max_size=80,
)


@settings(max_examples=200)
@given(steps)
def test_played_ms_is_what_left(script: list[Step]) -> None:
    """Against a plain list of bytes: whatever the order of calls, heard is what left, to the sample."""
    pacer = Pacer()
    generation, queue, finished, left = 0, b"", False, {0: 0}
    enough, breaks = FRAME, 0
    for action, size in script:
        item_id = f"g{generation}"
        if action == "play" and not finished:
            pacer.play(item_id, speech(2 * size))
            queue += speech(2 * size)
        elif action == "finish" and queue:
            pacer.finish(item_id)
            finished = True
        elif action == "clear":
            pacer.clear()
            generation, queue, finished = generation + 1, b"", False
            left[generation] = 0
            enough, breaks = FRAME, 0
        elif action == "frame":
            frame = pacer.next_frame()
            assert len(frame) == FRAME
            if len(queue) >= enough or (finished and queue):
                size_bytes = min(FRAME, len(queue))
                sure = RAMP if enough > FRAME else 0
                assert frame[sure:] == queue[:size_bytes].ljust(FRAME, b"\0")[sure:]
                queue = queue[size_bytes:]
                left[generation] += size_bytes
                enough = FRAME
                if finished and not queue:
                    generation, finished = generation + 1, False
                    left[generation] = 0
                    breaks = 0
            elif enough == FRAME and left[generation]:
                enough = min(100 * 2**breaks, 800) * 16
                breaks += 1
    for number, length_bytes in left.items():
        assert pacer.played_ms(f"g{number}") == length_bytes / 16


def test_a_pause_loses_nothing_and_tells_nothing() -> None:
    pacer = Pacer()
    pcm = speech(5 * FRAME)
    pacer.play("a", pcm)
    pacer.finish("a")
    assert pacer.next_frame() == pcm[:FRAME]
    pacer.take_marks()
    pacer.pause()
    silent = [pacer.next_frame() for _ in range(3)]
    assert silent[0][80:] == SILENCE[80:] and silent[1:] == [SILENCE, SILENCE], "it falls to silence in 5 ms"
    assert pacer.speaking and pacer.played_ms("a") == 20 and pacer.take_marks() == []
    pacer.play("b", pcm)
    pacer.resume()
    again = pacer.next_frame()
    assert again[80:] == pcm[FRAME + 80 : 2 * FRAME], "the very next sample, after 5 ms of rising"
    assert again[:2] == bytes(2)
    assert pacer.next_frame() == pcm[2 * FRAME : 3 * FRAME]
    pacer.resume()
    assert pacer.next_frame() == pcm[3 * FRAME : 4 * FRAME], "nothing was paused"


def test_clearing_ends_a_pause() -> None:
    pacer = Pacer()
    pacer.play("a", speech(2 * FRAME))
    pacer.pause()
    pacer.clear()
    pacer.play("b", speech(2 * FRAME))
    assert pacer.next_frame() == speech(2 * FRAME)[:FRAME]


def test_marks_tell_first_and_last_frame() -> None:
    pacer = Pacer()
    pacer.play("a", speech(FRAME + 100))
    assert pacer.take_marks() == []
    pacer.next_frame()
    assert pacer.take_marks() == [ItemStarted("a")]
    pacer.finish("a")
    pacer.next_frame()
    assert pacer.take_marks() == [ItemFinished("a", 420 / 16)]
    assert not pacer.speaking


def test_an_item_that_runs_dry_waits_and_is_counted() -> None:
    pacer = Pacer()
    pacer.play("a", speech(FRAME + 100))
    pacer.next_frame()
    assert pacer.next_frame()[100:] == SILENCE[100:], "the rest of a frame does not leave alone"
    assert pacer.next_frame() == SILENCE
    assert pacer.underruns == 2 and pacer.speaking
    pacer.finish("a")
    assert pacer.next_frame()[100:] == SILENCE[100:]
    assert ItemFinished("a", (FRAME + 100) / 16) in pacer.take_marks()


def test_what_ran_dry_goes_on_when_there_is_enough_to_go_on() -> None:
    """Single frames between silences are noise; a pause is a pause."""
    pacer = Pacer()
    pcm = speech(8 * FRAME)
    pacer.play("a", pcm[:FRAME])
    assert pacer.next_frame() == pcm[:FRAME]
    pacer.next_frame()
    for frame in range(1, 5):
        pacer.play("a", pcm[frame * FRAME : (frame + 1) * FRAME])
        assert pacer.next_frame() == SILENCE and pacer.starved
    pacer.play("a", pcm[5 * FRAME : 6 * FRAME])
    assert not pacer.starved, "there are 100 ms"
    risen = pacer.next_frame()
    assert risen[:2] == bytes(2) and risen[RAMP:] == pcm[FRAME + RAMP : 2 * FRAME], "it rises in 5 ms"
    assert [pacer.next_frame() for _ in range(4)] == [pcm[n * FRAME : (n + 1) * FRAME] for n in range(2, 6)]
    pacer.next_frame()
    pacer.play("a", pcm[6 * FRAME :])
    assert pacer.next_frame() == SILENCE, "the second time it waits for more"
    pacer.finish("a")
    assert pacer.next_frame()[RAMP:] == pcm[6 * FRAME + RAMP : 7 * FRAME], "no more will come"
    assert pacer.next_frame() == pcm[7 * FRAME :]
    assert pacer.underruns == 7 and not pacer.speaking


def test_an_engine_at_half_speed_pauses_seldom() -> None:
    """6 s of speech that take 12 s to come: a few pauses, not three hundred."""
    pacer = Pacer()
    sounding = []
    for tick in range(2 * 300):
        if tick % 2 == 0:
            pacer.play("a", speech(FRAME, first=1 + tick))
        sounding.append(pacer.next_frame() != SILENCE)
    pauses = sum(before and not after for before, after in zip(sounding, sounding[1:], strict=False))
    assert 1 < pauses <= 8
    assert pacer.played_ms("a") > 4000


def test_an_engine_that_drips_is_starving_throughout() -> None:
    """20 ms of sound every second are no speech."""
    pacer = Pacer()
    sounding = []
    for tick in range(5 * 50):
        if tick % 50 == 0:
            pacer.play("a", speech(FRAME))
        sounding.append(not pacer.starved)
        pacer.next_frame()
    assert sounding == [True] + 249 * [False]


def test_clearing_forgets_that_it_ran_dry() -> None:
    pacer = Pacer()
    pacer.play("a", speech(FRAME))
    pacer.next_frame()
    pacer.next_frame()
    pacer.clear()
    pacer.play("b", speech(2 * FRAME))
    assert pacer.next_frame() == speech(2 * FRAME)[:FRAME]


def test_waiting_for_the_first_audio_is_no_underrun() -> None:
    pacer = Pacer()
    pacer.play("a", b"")
    pacer.next_frame()
    assert pacer.underruns == 0


def test_items_play_in_the_order_of_their_first_audio() -> None:
    pacer = Pacer()
    pacer.play("a", speech(FRAME))
    pacer.play("b", speech(FRAME, first=5000))
    pacer.play("a", speech(FRAME, first=2000))
    assert pacer.next_frame() == speech(FRAME)
    assert pacer.next_frame() == speech(FRAME, first=2000)
    pacer.next_frame()
    pacer.finish("a")
    assert pacer.next_frame() == speech(FRAME, first=5000)


def test_an_item_without_audio_is_finished_too() -> None:
    pacer = Pacer()
    pacer.finish("a")
    assert pacer.next_frame() == SILENCE
    assert pacer.take_marks() == [ItemFinished("a", 0.0)]


def test_clear_falls_to_silence_in_5_ms() -> None:
    pacer = Pacer()
    pacer.play("a", np.full(1600, 12_000, "<i2").tobytes())
    pacer.next_frame()
    pacer.clear()
    assert not pacer.speaking
    tail = np.frombuffer(pacer.next_frame(), "<i2").astype(int)
    assert tail[0] > 11_000 and not tail[40:].any()
    assert np.abs(np.diff(tail)).max() < 500
    assert pacer.next_frame() == SILENCE
    assert pacer.played_ms("a") == 20.0


@pytest.mark.parametrize("frames_heard", [0, 1])
def test_a_late_finish_of_what_was_cleared_is_no_news(frames_heard: int) -> None:
    """Otherwise an interrupted sentence would be reported as heard to its end."""
    pacer = Pacer()
    pacer.play("a", speech(10 * FRAME))
    for _ in range(frames_heard):
        pacer.next_frame()
    pacer.take_marks()
    pacer.clear()
    pacer.finish("a")
    pacer.next_frame()
    assert pacer.take_marks() == []
    assert not pacer.speaking
    assert pacer.played_ms("a") == 20.0 * frames_heard


def test_the_queue_is_bounded() -> None:
    pacer = Pacer()
    minute = bytes(60 * 16_000)
    for _ in range(12):
        pacer.play("a", minute)
    assert pacer.dropped_bytes == 2 * len(minute)
    pacer.clear()
    pacer.play("b", minute)
    assert pacer.dropped_bytes == 2 * len(minute)
    assert 10 * len(minute) == MAX_QUEUED_BYTES


def test_old_items_are_forgotten() -> None:
    pacer = Pacer()
    for number in range(REMEMBERED_ITEMS + 10):
        pacer.play(f"i{number}", speech(FRAME))
        pacer.finish(f"i{number}")
        pacer.next_frame()
    assert pacer.played_ms("i9") == 0.0
    assert pacer.played_ms("i10") == 20.0


# --- FrameClock --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wake", [lambda at: at, lambda at: at + 0.0009, lambda at: at + 0.019])
def test_a_frame_per_20_ms_without_drift(wake: Callable[[float], float]) -> None:
    clock = FrameClock(1000.0)
    for index in range(50_000):
        assert clock.next_at == pytest.approx(1000.0 + index * 0.02, abs=1e-6)
        assert clock.due(wake(clock.next_at)) == (1, 0)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=50))
def test_after_any_stall_time_is_right_and_bursts_are_bounded(pauses: list[float]) -> None:
    clock = FrameClock(5.0)
    now, total = 5.0, 0
    for pause_s in pauses:
        now += pause_s
        sent, skipped = clock.due(now)
        assert 0 <= sent <= MAX_BURST_FRAMES
        assert not skipped or sent == MAX_BURST_FRAMES
        total += sent + skipped
        assert abs(total - ((now - 5.0) / 0.02 + 0.5)) <= 0.501
        assert now < clock.next_at <= now + 0.0201


def test_too_early_nothing_is_due() -> None:
    clock = FrameClock(5.0)
    assert clock.due(4.0) == (0, 0)
    assert clock.due(5.0) == (1, 0)
    assert clock.due(5.01) == (0, 0)

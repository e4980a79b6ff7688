"""What somebody who watches is told of calls."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ari_app import live as live_module
from ari_app.ari.outcome import Ending, Outcome
from ari_app.dialog import ports
from ari_app.happenings import Ended, LineHeard, Progress, RecordingFailed
from ari_app.live import MAX_EVENTS, MAX_OVER, LiveCalls, TooManyWatchers
from ari_app.rtp.quality import LineQuality

FACTS: tuple[ports.Fact, ...] = (
    ports.CallerSpeechStarted(1.2, 1.0),
    ports.CallerSaid(1, "hello", "en", b"1234"),
    ports.CallerNotUnderstood(1, "noise"),
    ports.BotSpeechStarted(1, 1.0),
    ports.BotSaid(1, "hello", "hello", False, b"1234"),
    ports.BargeIn(1, 1.0, 1.0),
    ports.BargeInDismissed(1, 1.0, 480.0, "mhm"),
    ports.TurnTimed(1, 1.0, 2.0),
    ports.Speculated(1, True, 3),
    ports.EngineUsed(1, "realtime", "m", {"text_in": 1}, 0.1, 0.3),
    ports.EngineUsed(1, "chat", "n", {"text_in": 1}, None, 0.3, True),
    ports.EngineFailed(1, "chat", "no answer", False, "timeout"),
    ports.GaveUp("no answer"),
)


def call(call_id: str = "a1") -> Any:
    return SimpleNamespace(call_id=call_id, recording=SimpleNamespace(state="on"), tap=None)


def told(waiting: Any) -> list[dict[str, Any]]:
    messages = []
    while not waiting.empty():
        messages.append(json.loads(json.dumps(waiting.get_nowait())))
    return messages


async def test_every_fact_can_be_told() -> None:
    live = LiveCalls()
    with live.watch() as waiting:
        observe = live.begin(call(), {"call": "a1", "direction": "inbound", "from": "100"})
        for fact in FACTS:
            observe(fact)
        messages = told(waiting)
    events = [message for message in messages if message["type"] == "event"]
    assert {message["call"] for message in messages} == {"a1"}
    assert [event["event"] for event in events if event["event"] == "engine_failed"] == ["engine_failed"]
    assert next(event for event in events if event["event"] == "engine_failed")["kind"] == "timeout"
    assert len(events) == len(FACTS) - 1, "all but the speculation"
    kept = live.detail("a1")
    assert kept is not None and "engine_used" not in [event["event"] for event in kept["events"]]
    assert "pcm" not in json.dumps(events)
    assert live.summaries()[0]["cost_usd"] == 0.3 and live.summaries()[0]["cost_is_partial"]


async def test_what_an_answer_waited_for_is_told() -> None:
    live = LiveCalls()
    with live.watch() as waiting:
        observe = live.begin(call(), {"call": "a1", "direction": "inbound"})
        observe(ports.TurnTimed(1, 10.0, 11.0, 10.5, 10.6, 10.7, 10.8, 11.02))
        event = told(waiting)[-1]
    assert event["wait_ms"] == 1020
    assert event["stages"] == [
        {"name": "silence window", "begin_ms": 0, "end_ms": 1000},
        {"name": "on the line", "begin_ms": 1000, "end_ms": 1020},
    ]
    assert [stage["name"] for stage in event["ahead"]] == [
        *("speech-to-text", "first word", "first sentence", "first speech"),
    ]


async def test_a_recording_that_fails_is_news() -> None:
    live, one = LiveCalls(), call()
    observe = live.begin(one, {"call": "a1", "direction": "inbound"})
    with live.watch() as waiting:
        one.recording.state = "failed"
        observe(RecordingFailed("No space left on device"))
        (message,) = told(waiting)
    assert message["summary"]["recording"] == "failed"


async def test_a_call_is_remembered_after_its_end() -> None:
    live = LiveCalls()
    for number in range(MAX_OVER + 3):
        observe = live.begin(call(f"c{number}"), {"call": f"c{number}", "direction": "inbound"})
        observe(Progress("talking"))
        observe(LineHeard(LineQuality(1, 1, 0.0, 0.0, 1.0, 10.0)))
        observe(Ended(Ending(Outcome.ANSWERED, "far", "hung up")))
    summaries = live.summaries()
    assert len(summaries) == MAX_OVER and summaries[0]["call"] == f"c{MAX_OVER + 2}"
    assert summaries[0]["stage"] == "over" and "hung up" in summaries[0]["ending"]
    assert live.detail("c0") is None


async def test_a_long_call_is_kept_by_its_end() -> None:
    live = LiveCalls()
    observe = live.begin(call(), {"call": "a1", "direction": "inbound"})
    for turn in range(MAX_EVENTS + 10):
        observe(ports.CallerSaid(turn, "hello", "en", b""))
    detail = live.detail("a1")
    assert detail is not None and len(detail["events"]) == MAX_EVENTS
    assert detail["events"][-1]["turn"] == MAX_EVENTS + 9


async def test_a_watcher_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_WAITING", 3)
    live = LiveCalls()
    with live.watch() as slow, live.watch() as quick:
        observe = live.begin(call(), {"call": "a1", "direction": "inbound"})
        for turn in range(5):
            observe(ports.CallerSaid(turn, "hello", "en", b""))
            told(quick)
        assert not live.is_watching(slow) and live.is_watching(quick)


async def test_who_was_let_go_counts_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection still costs; who does not read could open any number of them."""
    monkeypatch.setattr(live_module, "MAX_WATCHERS", 1)
    monkeypatch.setattr(live_module, "MAX_WAITING", 1)
    live = LiveCalls()
    with live.watch() as slow:
        for call_id in ("a1", "a2"):
            live.begin(call(call_id), {"call": call_id, "direction": "inbound"})
        assert not live.is_watching(slow)
        with pytest.raises(TooManyWatchers), live.watch():
            pass
    with live.watch():
        pass


async def test_events_of_a_call_are_numbered() -> None:
    """Whoever asked for them and follows them too can tell which ones it has."""
    live = LiveCalls()
    observe = live.begin(call(), {"call": "a1", "direction": "inbound"})
    observe(ports.CallerSaid(1, "before", "en", b""))
    with live.watch() as waiting:
        observe(ports.CallerSaid(2, "after", "en", b""))
        events = told(waiting)
    detail = live.detail("a1")
    assert detail is not None and [event["n"] for event in detail["events"]] == [1, 2]
    assert [event["n"] for event in events] == [2]


@pytest.mark.parametrize(
    ("before", "after"), [("on", "kept"), ("paused", "kept"), ("off", "off"), ("failed", "failed")]
)
async def test_what_became_of_a_recording(before: str, after: str) -> None:
    live, one = LiveCalls(), call()
    observe = live.begin(one, {"call": "a1", "direction": "inbound"})
    one.recording.state = before
    assert live.summaries()[0]["recording"] == before
    observe(Ended(Ending(Outcome.ANSWERED, "far", "hung up")))
    assert live.summaries()[0]["recording"] == after
    one.recording.state = "failed"
    with live.watch() as waiting:
        observe(RecordingFailed("its end could not be written"))
        (message,) = told(waiting)
    assert message["summary"]["recording"] == live.summaries()[0]["recording"] == "failed"


async def test_levels_are_taken_only_while_somebody_looks() -> None:
    live, one = LiveCalls(), call()
    live.begin(one, {"call": "a1", "direction": "inbound"})
    assert not one.tap
    with live.watch():
        one.tap("bot", (16384).to_bytes(2, "little") * 160)
        assert live.levels() == {"a1": {"caller": -90, "bot": -6}}
        for _ in range(40):
            one.tap("bot", bytes(320))
        assert live.levels()["a1"]["bot"] < -60
    assert one.tap is None


async def test_the_number_of_watchers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_WATCHERS", 1)
    live = LiveCalls()
    with live.watch(), pytest.raises(TooManyWatchers), live.watch():
        pass
    with live.watch():
        pass

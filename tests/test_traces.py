"""Calls as a collector sees them, over the wire; and calls that do not notice that it is away."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ari_app import traces as traces_module
from ari_app.app import App
from ari_app.ari.outcome import Ending, Outcome
from ari_app.config import collector_setting, load, unknown_names
from ari_app.dialog import ports
from ari_app.errors import ConfigError
from ari_app.happenings import Ended, Observer, Progress
from ari_app.sources import export_standard_names
from ari_app.traces import Traces
from tests.fakes.asterisk import until
from tests.fakes.call_bench import free_port, nothing_leaks
from tests.fakes.otlp_collector import Collector, Span, collecting

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ABOUT = {
    "call": "a1b2c3d4e5f6",
    "mode": "pipeline",
    "direction": "inbound",
    "from": "+15551234567",
    "to": "4711",
    "channel": "1700000000.1",
    "sip_call_id": "f81d4fae@198.51.100.4",
}
GONE = Ending(Outcome.ANSWERED, "far", "hung up")


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with nothing_leaks(), collecting() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        yield collector


def begin(traces: Traces, **about: str) -> Observer:
    call: Any = SimpleNamespace(call_id=ABOUT["call"], far_id=ABOUT["channel"])
    return traces.begin(call, {**ABOUT, **about})


def of(parent: Span, spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.parent_id == parent.span_id]


async def test_a_call_is_a_tree_of_spans_on_the_wall_clock(collector: Collector) -> None:
    loop = asyncio.get_running_loop()
    before_ns = time.time_ns()
    async with Traces() as traces:
        observe = begin(traces)
        observe(Progress("talking"))
        said = loop.time()  # the caller's last word, and from there the waterfall
        stages = [said + 0.5, said + 0.4, said + 0.45, said + 0.47, said + 0.5, said + 0.6]
        observe(ports.CallerSaid(1, "my secret words", "en", b""))
        observe(ports.Speculated(1, True, 3))
        observe(ports.TurnTimed(1, said, *stages))
        observe(ports.BotSaid(1, "very private", "very private", False, b""))
        observe(ports.BargeIn(1, said + 1, said + 0.9))
        observe(ports.BargeInDismissed(1, said + 2, 480.0, "mhm quietly"))
        observe(ports.EngineUsed(1, "chat", "m", {"text_in": 9}, 0.25, 0.25))
        observe(Ended(GONE))
        ended_ns = time.time_ns()
    (call,) = collector.named("call")
    assert not call.parent_id and call.kind == 2 and not call.failed
    assert call.attributes == {
        "ari_app.call_id": "a1b2c3d4e5f6",
        "ari_app.direction": "inbound",
        "ari_app.mode": "pipeline",
        "asterisk.channel_id": "1700000000.1",
        "sip.call_id": "f81d4fae@198.51.100.4",
        "ari_app.outcome": "answered",
        "ari_app.ended_by": "far",
        "ari_app.reason": "hung up",
        "ari_app.cost_usd": 0.25,
        "ari_app.cost_is_partial": False,
    }
    assert before_ns - 5e7 <= call.begin_ns <= call.end_ns <= ended_ns + 5e7
    (turn,) = of(call, collector.spans)
    assert turn.name == "turn" and {span.trace_id for span in collector.spans} == {call.trace_id}
    assert turn.attributes == {"ari_app.turn": 1, "ari_app.answered": True, "ari_app.speculation": "won"}
    assert turn.end_ns - turn.begin_ns == pytest.approx(6e8, abs=1000)
    spans = {
        s.name: (s.begin_ns - turn.begin_ns, s.end_ns - turn.begin_ns) for s in of(turn, collector.spans)
    }
    assert {name: [round(ns / 1e6) for ns in times] for name, times in spans.items()} == {
        "silence_window": [0, 500],
        "speech_to_text": [0, 400],
        "first_word": [400, 450],
        "first_sentence": [450, 470],
        "first_speech": [470, 500],
        "on_the_line": [500, 600],
    }
    events = [(e.name, e.attributes.get("ari_app.kind")) for e in call.events]
    assert events == [
        ("talking", None),
        ("speculation", "won"),
        ("barge_in", "confirmed"),
        ("barge_in", "resumed"),
    ]
    assert call.events[3].at_ns - call.events[2].at_ns == pytest.approx(1e9, abs=1000)
    (resource,) = collector.resources
    assert resource["service.name"] == "ari_app" and resource["service.version"]
    for word in (b"5551234567", b"4711", b"secret", b"private", b"quietly"):
        assert word not in collector.raw


async def test_words_that_are_written_down_after_the_answer(collector: Collector) -> None:
    """As in Realtime: nobody waited for them, and no stage ends before it begins."""
    async with Traces() as traces:
        observe = begin(traces)
        observe(ports.TurnTimed(1, 100.0, 100.2, 101.0, 100.3, None, 100.35, 100.5))
        observe(Ended(GONE))
    (turn,) = collector.named("turn")
    stages = {
        s.name: (s.begin_ns - turn.begin_ns, s.end_ns - turn.begin_ns) for s in of(turn, collector.spans)
    }
    assert {name: [round(ns / 1e6) for ns in times] for name, times in stages.items()} == {
        "silence_window": [0, 200],
        "first_word": [200, 300],
        "first_speech": [300, 350],
        "on_the_line": [350, 500],
    }


async def test_what_failed_is_marked(collector: Collector) -> None:
    async with Traces() as traces:
        observe = begin(traces, direction="outbound", to="+4930123456")
        observe(ports.EngineFailed(2, "chat", "refused: “my words”", True, "rejected"))
        observe(ports.TurnTimed(2, 100.0, 101.0, 101.5))
        observe(ports.GaveUp("chat: refused: “my words”"))
        detail = "could not originate PJSIP/+4930123456@trunk or 030123456 (HTTP 400): no route"
        observe(Ended(Ending(Outcome.FAILED, "us", detail)))
    (call,), (turn,) = collector.named("call"), collector.named("turn")
    assert call.failed and call.kind == 3 and turn.failed
    assert call.attributes["ari_app.reason"] == "could not originate PJSIP/…@trunk or … (HTTP 400): no route"
    assert turn.attributes["ari_app.failure"] == "chat: rejected" and not turn.attributes["ari_app.answered"]
    assert turn.end_ns - turn.begin_ns == pytest.approx(1.5e9, abs=1000)
    assert [event.name for event in call.events] == ["engine_failed", "gave_up"]
    assert call.events[0].attributes == {
        "ari_app.turn": 2,
        "ari_app.stage": "chat",
        "ari_app.kind": "rejected",
        "ari_app.permanent": True,
    }
    assert b"my words" not in collector.raw and b"30123456" not in collector.raw


async def test_calls_side_by_side_are_traces_of_their_own(collector: Collector) -> None:
    async with Traces() as traces:
        observers = [begin(traces) for _ in range(3)]
        for number, observe in enumerate(observers, 1):
            observe(ports.TurnTimed(number, 100.0, 101.0, 101.5))
        for observe in observers[:2]:
            observe(Ended(GONE))
    turns = {span.trace_id: span.attributes["ari_app.turn"] for span in collector.named("turn")}
    calls = {span.trace_id: span for span in collector.named("call")}
    assert sorted(turns.values()) == [1, 2, 3] and turns.keys() == calls.keys()
    cut_short = [span for span in calls.values() if span.failed]
    assert [turns[span.trace_id] for span in cut_short] == [3], "the process ended before the call"


async def test_the_standard_names_are_obeyed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "front-desk")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    async with Traces() as traces:
        begin(traces)(Ended(GONE))
    assert collector.encodings == {"gzip"}
    (resource,) = collector.resources
    assert resource["service.name"] == "front-desk" and resource["deployment.environment"] == "test"


# --- a collector that is away ------------------------------------------------------------------------


def sdk_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name != "asyncio"]


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with nothing_leaks():
        async with Traces() as traces:
            for _ in range(5):
                begin(traces)(Ended(GONE))
                await asyncio.sleep(0.1)
            await until(lambda: bool(sdk_lines(caplog)))
        lines = sdk_lines(caplog)
    assert len(lines) == 1 and lines[0].startswith(
        "spans can't be delivered, and are dropped until they can: "
    )


async def test_a_collector_that_comes_back(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    collector.status = 400
    async with Traces() as traces:
        begin(traces)(Ended(GONE))
        await until(lambda: bool(sdk_lines(caplog)))
        collector.status = 200
        begin(traces)(Ended(GONE))
        await until(lambda: bool(collector.spans))
    ours = [line for line in sdk_lines(caplog) if "spans" in line]
    assert len(ours) == 2 and "400" in ours[0] and ours[1] == "spans are delivered again"


async def test_a_collector_that_hangs_costs_no_call_its_time_and_the_end_little(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(traces_module, "FLUSH_S", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    collector.hang = True
    async with Traces() as traces:
        begin(traces)(Ended(GONE))
        await until(lambda: collector.requests == 1)
        for _ in range(1000):  # many more than wait
            begin(traces)(Ended(GONE))
        assert collector.requests == 1
    assert "the last spans were not delivered within 0.2 s" in sdk_lines(caplog)
    assert len(sdk_lines(caplog)) <= 2, "nothing about each span that was dropped"
    assert not collector.spans


# --- switching it on ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "setting"),
    [
        ({}, ""),
        ({ENDPOINT: ""}, ""),
        ({ENDPOINT: "http://c:4318"}, ENDPOINT),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/x"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "console,otlp"}, ENDPOINT),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "true"}, ""),
        ({ENDPOINT: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ENDPOINT),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ""),
    ],
)
def test_it_is_on_where_a_collector_is_named(env: dict[str, str], setting: str) -> None:
    assert collector_setting(env) == setting


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({ENDPOINT: "collector:4318"}, f"{ENDPOINT} must be a URL"),
        ({ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf only.*4318"),
    ],
)
def test_a_collector_that_can_t_be_reached_is_told(env: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        collector_setting(env)


async def test_a_setting_that_the_sdk_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000")
    with pytest.raises(
        ConfigError, match="an OTEL_ variable of the environment can't be used: .*max_queue_size"
    ):
        async with Traces():
            raise AssertionError("entered")


def test_without_the_extra_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load({}, {"MODE": "echo"}, {})
    App(config, command="serve")
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.delitem(sys.modules, "opentelemetry.sdk.resources")
    monkeypatch.delitem(sys.modules, "ari_app.traces")
    with pytest.raises(
        ConfigError, match=rf"{ENDPOINT} needs the package opentelemetry.*pip install 'ari_app\[otel\]'"
    ):
        App(config, command="serve")


def test_nothing_is_imported_for_it_when_it_is_off() -> None:
    program = (
        "import sys, ari_app.app; print([n for n in sys.modules if n.partition('.')[0] in sys.argv[1:]])"
    )
    command = [sys.executable, "-c", program, "opentelemetry", "requests", "google"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_names_may_stand_in_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"{ENDPOINT}=http://c:4318\nOTEL_SERVICE_NAME=theirs\nMODE=echo\n")
    for name in (ENDPOINT, "MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "")
    export_standard_names()
    found = {name: value for name, value in os.environ.items() if re.match("OTEL_|MODE$", name)}
    assert found == {ENDPOINT: "http://c:4318", "OTEL_SERVICE_NAME": "ours"}
    assert unknown_names({ENDPOINT: ""}, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "x"}) == []
    (told,) = unknown_names({"OTEL_SERVICE_NAMES": ""})
    assert "did you mean OTEL_SERVICE_NAME?" in told

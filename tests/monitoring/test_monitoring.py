"""The dashboard and the alert rules, against the application's own figures and a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ari_app.ari.outcome import Ending, Outcome
from ari_app.call import Call
from ari_app.demo.asterisk_prefix import Tool, fetch
from ari_app.dialog import ports
from ari_app.errors import EngineError, EngineTimeout
from ari_app.happenings import Ended, LineHeard, RecordingFailed
from ari_app.metrics import Metrics
from ari_app.rtp.quality import LineQuality
from ari_app.rtp.receive import RtpCounters
from ari_app.web.access import Access
from ari_app.web.api import Api
from ari_app.web.phone import Phone
from ari_app.web.server import Web
from tests.fakes.call_bench import free_port

FOLDER = Path(__file__).resolve().parents[2] / "containers/monitoring"
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/ari_app.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES = (FOLDER / "prometheus/alerts.yml").read_text(encoding="utf-8")
TOKEN = "t0ken-of-the-test-0123456789"
PROMETHEUS = Tool(
    name="prometheus",
    title="Prometheus",
    packages=("prometheus",),
    binary="usr/bin/prometheus",
    version_args=("--version",),
    version=r"prometheus, version [23]\.",
    keep="prometheus|libc6",
)


PROMTOOL = Tool(
    name="promtool",
    title="promtool",
    packages=("promtool",),
    binary="usr/bin/promtool",
    version_args=("--version",),
    version=r"promtool, version [23]\.",
    keep="promtool|libc6",
)


def a_day_of_calls() -> Metrics:
    """Everything that is counted happened once."""
    metrics = Metrics()
    call: Any = object.__new__(Call)
    observe = metrics.begin(call, {"direction": "inbound"})
    observe(ports.CallerSaid(1, "hello", "en", b""))
    observe(ports.CallerNotUnderstood(2, "noise"))
    observe(ports.BargeIn(1, 1.0, 1.0))
    observe(ports.BargeInDismissed(1, 1.0, 500.0, ""))
    observe(ports.Speculated(1, True, 3))
    observe(ports.Speculated(2, False, 1))
    observe(ports.EngineFailed(1, "chat", "no answer", False, "timeout"))
    observe(ports.EngineUsed(1, "realtime", "some-model", {"audio_in": 100}, 0.01, 0.01))
    observe(ports.EngineUsed(1, "chat", "other-model", {"uncounted": 1}, None, 0.01, True))
    observe(ports.TurnTimed(1, 10.0, 11.0, 10.5, 10.6, 10.7, 10.8, 11.02))
    observe(LineHeard(LineQuality(100, 100, 1.0, 0.0, 5.0, 50.0), final=True))
    observe(Ended(Ending(Outcome.ANSWERED, "far", "hung up"), {"received": 100, "sent": 100, "lost": 1}))
    observe(LineHeard(LineQuality(0, 1500, 0.0, 0.0, 0.0, 0.0), final=True))
    observe(Ended(Ending(Outcome.ANSWERED, "far", "hung up"), {"sent": 1500}, unheard=True))
    observe(RecordingFailed("No space left on device"))
    metrics.refused("busy")
    metrics.connected()
    metrics.swept(2)
    metrics.show({"calls": 1, "max_calls": 9, "registered": True, "engines": {"chat": {"primary": True}}}, 3)
    return metrics


def series(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_what_happened_is_counted() -> None:
    figures = series(a_day_of_calls().exposition().decode())
    expected = {
        'ari_app_calls_total{direction="inbound",ended_by="far",outcome="answered"}': 2,
        "ari_app_calls_without_caller_audio_total": 1,
        'ari_app_turns_total{result="understood"}': 1,
        'ari_app_turns_total{result="not_understood"}': 1,
        'ari_app_barge_ins_total{result="confirmed"}': 1,
        'ari_app_barge_ins_total{result="resumed"}': 1,
        'ari_app_speculations_total{result="won"}': 1,
        'ari_app_speculative_requests_total{result="lost"}': 1,
        'ari_app_engine_failures_total{kind="timeout",stage="chat"}': 1,
        'ari_app_engine_tokens_total{kind="audio_in",model="some-model"}': 100,
        'ari_app_engine_cost_usd_total{model="some-model"}': 0.01,
        'ari_app_engine_requests_total{cost="known",model="some-model",stage="realtime"}': 1,
        'ari_app_engine_requests_total{cost="unknown",model="other-model",stage="chat"}': 1,
        'ari_app_rtp_packets_total{kind="lost"}': 1,
        'ari_app_calls_refused_total{reason="busy"}': 1,
        "ari_app_ari_connections_total": 1,
        "ari_app_swept_total": 2,
        "ari_app_recordings_failed_total": 1,
        "ari_app_caller_mos_count": 1,
    }
    assert {name: figures[name] for name in expected} == expected
    assert figures["ari_app_turn_gap_seconds_sum"] == pytest.approx(1.02)
    assert figures['ari_app_stage_seconds_sum{stage="silence_window"}'] == pytest.approx(1.0)
    assert figures['ari_app_stage_seconds_sum{stage="on_the_line"}'] == pytest.approx(0.02)
    assert figures['ari_app_stage_end_seconds_sum{stage="speech_to_text"}'] == pytest.approx(0.5)


def test_the_stages_add_up_to_the_wait_in_both_modes() -> None:
    metrics = Metrics()
    call: Any = object.__new__(Call)
    observe = metrics.begin(call, {"direction": "inbound"})
    observe(ports.TurnTimed(1, 10.0, 11.0, 10.5, 10.6, 10.7, 10.8, 11.02))
    observe(ports.TurnTimed(2, 20.0, 20.5, None, 21.297, None, 21.294, 21.301))
    observe(ports.TurnTimed(3, 30.0, 30.5, 30.6))  # the caller heard no answer
    figures = series(metrics.exposition().decode())
    stages = {name: value for name, value in figures.items() if "stage_seconds_sum" in name}
    assert sum(stages.values()) == pytest.approx(figures["ari_app_turn_gap_seconds_sum"])
    assert figures["ari_app_turn_gap_seconds_count"] == 2
    counts = {value for name, value in figures.items() if "stage_seconds_count" in name}
    assert len(stages) == 6 and counts == {2}


def test_what_may_be_counted_is_there_from_the_beginning() -> None:
    """Of a series that begins with 1 Prometheus sees no increase: the first fault would wake nobody."""
    figures = series(Metrics().exposition().decode())
    missing = [
        name
        for name in series(a_day_of_calls().exposition().decode())
        if name.startswith("ari_app_")
        and "model=" not in name  # what the operator chose
        and "engine=" not in name
        and "_created" not in name
        and name not in figures
    ]
    assert missing == []
    counted = {n: v for n, v in figures.items() if n.startswith("ari_app_") and n.endswith(("_total", "}"))}
    counted = {n: v for n, v in counted.items() if "_created" not in n and "ari_app_info" not in n}
    assert len(counted) > 100 and set(counted.values()) == {0}
    directions, outcomes, sides = 2, len(Outcome), 3
    assert sum(name.startswith("ari_app_calls_total{") for name in counted) == directions * outcomes * sides


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize("error", [EngineTimeout("realtime", "late"), EngineError("conversation", "x")])
def test_no_failure_brings_a_series_of_its_own(direction: str, error: EngineError) -> None:
    metrics = Metrics()
    before = set(series(metrics.exposition().decode()))
    call: Any = object.__new__(Call)
    observe = metrics.begin(call, {"direction": direction})
    observe(ports.EngineFailed(1, error.stage, error.message, error.permanent, error.kind))
    observe(Ended(Ending(Outcome.FAILED, "asterisk", "it broke"), asdict(RtpCounters())))
    assert set(series(metrics.exposition().decode())) == before


async def test_the_rules_go_off_when_they_should(tmp_path: Path) -> None:
    """Prometheus' own tool: each alert with its first fault, and none while all is well."""
    prefix = await asyncio.to_thread(fetch, lambda line: None, PROMTOOL)
    for file in (FOLDER / "prometheus/alerts.yml", Path(__file__).with_name("alerts_test.yml")):
        shutil.copy(file, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *prefix.command(PROMTOOL.binary),
        *("test", "rules", "alerts_test.yml"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    tested = (tmp_path / "alerts_test.yml").read_text(encoding="utf-8")
    for alert in re.findall(r"alert: (\w+)", RULES):
        assert f'alertname="{alert}"' in tested, "a rule without a test"


@pytest.mark.parametrize("expression", [*EXPRESSIONS, RULES])
def test_every_name_that_is_asked_for_is_counted(expression: str) -> None:
    counted = {name.partition("{")[0] for name in series(a_day_of_calls().exposition().decode())}
    asked = set(re.findall(r"\b(?:ari_app|process)_\w+\b", expression)) - {"ari_app"}
    assert asked and asked <= counted


@pytest.fixture
async def scraped(tmp_path: Path) -> AsyncIterator[str]:
    """A real Prometheus with our rules, which scrapes our server; yields its URL."""
    metrics = a_day_of_calls()
    state = {
        "ready": True,
        "registered": True,
        "calls": 1,
        "max_calls": 20,
        "engines": {"chat": {"primary": True, "fallback": False}},
    }
    nobody: Any = None
    web = Web(
        *("127.0.0.1", free_port(), lambda: state),
        access=Access(TOKEN),
        api=Api(nobody, nobody, tmp_path),
        metrics=metrics,
        phone=Phone("http://127.0.0.1:9", "", "100"),
    )
    prefix = await asyncio.to_thread(fetch, lambda line: None, PROMETHEUS)
    async with web:
        token = tmp_path / "token"
        token.write_text(TOKEN + "\n")
        shutil.copy(FOLDER / "prometheus/alerts.yml", tmp_path)
        settings = (FOLDER / "prometheus/prometheus.yml").read_text(encoding="utf-8")
        settings = settings.replace("/secrets/api_token", str(token)).replace("10s", "1s")
        (tmp_path / "prometheus.yml").write_text(settings.replace("app:8089", f"127.0.0.1:{web.port}"))
        port = free_port()
        log = (tmp_path / "log").open("w")
        process = await asyncio.create_subprocess_exec(
            *prefix.command(PROMETHEUS.binary),
            *(f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"),
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()
            log.close()


async def test_a_real_prometheus_scrapes_and_answers_the_dashboard(scraped: str) -> None:
    async with aiohttp.ClientSession(scraped) as http:

        async def ask(path: str, **query: str) -> Any:
            async with http.get(f"/api/v1/{path}", params=query) as answer:
                said = await answer.json()
                assert said["status"] == "success", (query, said)
                return said["data"]

        until = time.monotonic() + 30
        while True:
            try:
                if len((await ask("query", query="ari_app_registered[1m]"))["result"]):
                    found = (await ask("query", query="ari_app_registered[1m]"))["result"][0]["values"]
                    if len(found) >= 4:
                        break
            except aiohttp.ClientConnectionError:
                pass
            assert time.monotonic() < until, "it does not scrape"
            await asyncio.sleep(0.3)
        (target,) = (await ask("targets"))["activeTargets"]
        assert target["health"] == "up", target["lastError"]
        for expression in EXPRESSIONS:
            asked = expression.replace("$__rate_interval", "20s").replace("$__range", "20s")
            assert (await ask("query", query=asked))["result"], f"no data for {asked}"
        (group,) = (await ask("rules"))["groups"]
        assert {rule["health"] for rule in group["rules"]} == {"ok"}
        assert {rule["name"]: rule["state"] for rule in group["rules"]}["BotIsAway"] == "inactive"

"""What Prometheus scrapes: calls, turns, engines, lines, and the process's own pulse. Shell.

Nothing in a label comes from a caller: their number of values is bounded.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ari_app import __version__
from ari_app.ari.outcome import Outcome
from ari_app.call import Call
from ari_app.dialog import ports
from ari_app.dialog.waterfall import STAGES, waterfall
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnavailable, EngineUnreachable
from ari_app.happenings import Ended, Happening, LineHeard, Observer, Progress, RecordingFailed
from ari_app.rtp.receive import RtpCounters

CONTENT_TYPE = CONTENT_TYPE_LATEST

GAP_BUCKETS_S = (0.2, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
STAGE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
CALL_BUCKETS_S = (5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
LOSS_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MOS_BUCKETS = (1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.3, 4.4, 4.5)

LABELS = {name: name.replace(" ", "_").replace("-", "_") for name, _ in STAGES}
"""Of each stage of a turn's waterfall, by its name."""
DIRECTIONS = ("inbound", "outbound")
SIDES = ("far", "us", "asterisk")
REFUSALS = ("busy", "overloaded", "stopping")
ENGINE_ERRORS = (EngineError, EngineUnreachable, EngineUnavailable, EngineTimeout, EngineRejected)
ENGINE_STAGES = ("speech-to-text", "chat", "text-to-speech", "realtime", "conversation")

Figure = TypeVar("Figure", Counter, Histogram)


def _born(figure: Figure, labels: Mapping[str, Iterable[str]]) -> Figure:
    for values in itertools.product(*labels.values()) if labels else ():
        figure.labels(*map(str, values))
    return figure


class Metrics:
    """A `Watcher` of all calls that counts."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        self._make_gauges(registry)
        self._make_call_figures()
        self._make_turn_figures()
        self._make_engine_figures()
        self._make_line_figures()
        self._recordings_failed = self._counter("recordings_failed", "Calls whose recording is not whole")
        self._connections = self._counter("ari_connections", "Times Asterisk took the application")
        self._swept = self._counter("swept", "Channels and bridges of dead calls taken down")
        self._lag = self._histogram("loop_lag_seconds", "How late the event loop was", LAG_BUCKETS_S)

    def _counter(self, name: str, what: str, **labels: Iterable[str]) -> Counter:
        """All values of the labels count from 0 on: Prometheus sees no increase in what begins with 1."""
        return _born(Counter(f"ari_app_{name}", what, [*labels], registry=self.registry), labels)

    def _histogram(
        self, name: str, what: str, buckets: Iterable[float], **labels: Iterable[str]
    ) -> Histogram:
        return _born(
            Histogram(f"ari_app_{name}", what, [*labels], buckets=tuple(buckets), registry=self.registry),
            labels,
        )

    def _make_call_figures(self) -> None:
        self._calls = self._counter(
            "calls", "Calls that are over", direction=DIRECTIONS, outcome=[*Outcome], ended_by=SIDES
        )
        self._refused = self._counter("calls_refused", "Callers that were not taken", reason=REFUSALS)
        self._unheard = self._counter(
            "calls_without_caller_audio", "Calls in which not one packet came from the caller"
        )
        self._lasted = self._histogram(
            "call_seconds", "From begin to end of a call", CALL_BUCKETS_S, direction=DIRECTIONS
        )

    def _make_turn_figures(self) -> None:
        self._turns = self._counter("turns", "Turns of callers", result=("understood", "not_understood"))
        self._gap = self._histogram("turn_gap_seconds", "Caller's last word to bot's first", GAP_BUCKETS_S)
        self._stages = self._histogram(
            "stage_seconds", "What each stage added to the wait", STAGE_BUCKETS_S, stage=LABELS.values()
        )
        self._ready = self._histogram(
            "stage_end_seconds",
            "From the caller's last word to the end of each stage, also where nobody waited for it",
            STAGE_BUCKETS_S,
            stage=LABELS.values(),
        )
        self._barge_ins = self._counter("barge_ins", "Speech over the bot", result=("confirmed", "resumed"))
        self._speculated = self._counter("speculations", "Answers begun in a pause", result=("won", "lost"))
        self._speculative_requests = self._counter(
            "speculative_requests", "Requests for answers begun in a pause", result=("won", "lost")
        )

    def _make_engine_figures(self) -> None:
        self._failed = self._counter(
            "engine_failures",
            "Failed requests to engines",
            stage=ENGINE_STAGES,
            kind=[error.kind for error in ENGINE_ERRORS],
        )
        # Models are the operator's choice, so these begin with their first request.
        self._tokens = self._counter(
            "engine_tokens", "What engines took, by kind: tokens, characters, audio_ms", model=(), kind=()
        )
        self._requests = self._counter("engine_requests", "Requests of calls", stage=(), model=(), cost=())
        self._cost = self._counter("engine_cost_usd", "Of requests with known cost", model=())

    def _make_line_figures(self) -> None:
        self._rtp = self._counter(
            "rtp_packets",
            "Between Asterisk and the application, of calls that are over",
            kind=[field.name for field in fields(RtpCounters)],
        )
        self._mos = self._histogram(
            "caller_mos", "Estimated for the caller's line; see ari_app/rtp/quality.py", MOS_BUCKETS
        )
        self._jitter = self._histogram("caller_jitter_seconds", "Of the caller's packets", STAGE_BUCKETS_S)
        self._loss = self._histogram("caller_loss_ratio", "Packets lost on the caller's line", LOSS_BUCKETS)

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        Gauge("ari_app_info", "Version of the application", ["version"], registry=registry).labels(
            __version__
        ).set(1)
        self.calls_active = Gauge("ari_app_calls_active", "Calls that go on", registry=registry)
        self.calls_limit = Gauge("ari_app_calls_limit", "MAX_CALLS", registry=registry)
        self.tasks = Gauge(
            "ari_app_tasks", "Tasks of the event loop; a dead call has none", registry=registry
        )
        self.engine_available = Gauge(
            "ari_app_engine_available",
            "0 while an engine is out of service because it keeps failing",
            ["stage", "engine"],
            registry=registry,
        )
        self.registered = Gauge(
            "ari_app_registered", "1 while Asterisk hands calls to the application", registry=registry
        )

    def show(self, state: Mapping[str, Any], tasks: int) -> None:
        """How things are now: `state` as /ready has it, and the number of tasks."""
        self.calls_active.set(state["calls"])
        self.calls_limit.set(state["max_calls"])
        self.registered.set(state["registered"])
        self.tasks.set(tasks)
        for stage, engines in state["engines"].items():
            for engine, available in engines.items():
                self.engine_available.labels(stage, engine).set(available)

    def connected(self) -> None:
        """Asterisk took the application."""
        self._connections.inc()

    def swept(self, objects: int) -> None:
        """So many objects of dead calls were taken down."""
        self._swept.inc(objects)

    def observe_lag(self, lag_s: float) -> None:
        """The event loop was so late."""
        self._lag.observe(lag_s)

    def exposition(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)

    # --- Watcher

    def begin(self, call: Call, about: Mapping[str, object]) -> Observer:
        direction = str(about["direction"])
        began_at = time.monotonic()

        def observe(what: Happening) -> None:
            if isinstance(what, Ended):
                ending = what.ending
                self._calls.labels(direction, str(ending.outcome), ending.by).inc()
                self._unheard.inc(what.unheard)
                self._lasted.labels(direction).observe(time.monotonic() - began_at)
                for kind, count in what.rtp.items():
                    self._rtp.labels(kind).inc(count)
            elif isinstance(what, LineHeard):
                if what.final and what.quality.mos is not None:
                    self._mos.observe(what.quality.mos)
                    self._jitter.observe(what.quality.jitter_ms / 1000)
                    self._loss.observe(what.quality.lost_percent / 100)
            elif isinstance(what, RecordingFailed):
                self._recordings_failed.inc()
            elif not isinstance(what, Progress):
                self._count(what)

        return observe

    def refused(self, why: str) -> None:
        self._refused.labels(why).inc()

    def _count(self, fact: ports.Fact) -> None:
        match fact:
            case ports.CallerSaid():
                self._turns.labels("understood").inc()
            case ports.CallerNotUnderstood():
                self._turns.labels("not_understood").inc()
            case ports.BargeIn():
                self._barge_ins.labels("confirmed").inc()
            case ports.BargeInDismissed():
                self._barge_ins.labels("resumed").inc()
            case ports.Speculated(won=won, requests=requests):
                result = "won" if won else "lost"
                self._speculated.labels(result).inc()
                self._speculative_requests.labels(result).inc(requests)
            case ports.EngineFailed(stage=stage, kind=kind):
                self._failed.labels(stage, kind).inc()
            case ports.EngineUsed(stage=stage, model=model, amounts=amounts, cost_usd=cost_usd):
                self._requests.labels(stage, model, "unknown" if cost_usd is None else "known").inc()
                for name, count in amounts.items():
                    self._tokens.labels(model, name).inc(count)
                self._cost.labels(model).inc(cost_usd or 0.0)
            case ports.TurnTimed():
                self._time(fact)

    def _time(self, timed: ports.TurnTimed) -> None:
        fall = waterfall(asdict(timed))
        for stage in (*fall.ahead, *fall.stages):
            self._ready.labels(LABELS[stage.name]).observe(stage.end_ms / 1000)
        if fall.wait_ms is None:
            return
        self._gap.observe(fall.wait_ms / 1000)
        took_ms = {stage.name: stage.ms for stage in fall.stages}
        for name, label in LABELS.items():  # all of them: so the means of the stages add up to the mean wait
            self._stages.labels(label).observe(took_ms.get(name, 0) / 1000)

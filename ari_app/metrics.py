"""What Prometheus scrapes: calls, turns, engines, lines, and the process's own pulse. Shell.

Nothing in a label comes from a caller: their number of values is bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import product
from typing import Any

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
from ari_app.errors import (
    EngineError,
    EngineRejected,
    EngineTimeout,
    EngineUnavailable,
    EngineUnreachable,
)
from ari_app.happenings import Ended, Happening, LineHeard, Observer, Progress, RecordingFailed

CONTENT_TYPE = CONTENT_TYPE_LATEST

GAP_BUCKETS_S = (0.2, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
STAGE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
CALL_BUCKETS_S = (5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
MOS_BUCKETS = (1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.3, 4.4, 4.5)

LABELS = {name: name.replace(" ", "_").replace("-", "_") for name, _ in STAGES}
"""Of each stage of a turn's waterfall, by its name."""


ENGINE_STAGES = ("speech-to-text", "chat", "text-to-speech", "realtime", "conversation")
ENGINE_FAULTS = tuple(
    kind.kind for kind in (EngineError, EngineUnreachable, EngineUnavailable, EngineTimeout, EngineRejected)
)


class Metrics:
    """A `Watcher` of all calls that counts."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._make_gauges(registry)

        def counter(name: str, what: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"ari_app_{name}", what, labels, registry=registry)

        def histogram(
            name: str, what: str, buckets: Iterable[float], labels: Iterable[str] = ()
        ) -> Histogram:
            return Histogram(f"ari_app_{name}", what, labels, buckets=tuple(buckets), registry=registry)

        self._calls = counter("calls", "Calls that are over", ["direction", "outcome", "ended_by"])
        self._refused = counter("calls_refused", "Callers that were not taken", ["reason"])
        self._lasted = histogram("call_seconds", "From begin to end of a call", CALL_BUCKETS_S, ["direction"])
        self._turns = counter("turns", "Turns of callers", ["result"])
        self._gap = histogram("turn_gap_seconds", "Caller's last word to bot's first", GAP_BUCKETS_S)
        self._stages = histogram(
            "stage_seconds", "What each stage added to the wait", STAGE_BUCKETS_S, ["stage"]
        )
        self._ready = histogram(
            "stage_end_seconds",
            "From the caller's last word to the end of each stage, also where nobody waited for it",
            STAGE_BUCKETS_S,
            ["stage"],
        )
        self._barge_ins = counter("barge_ins", "Speech over the bot", ["result"])
        self._speculated = counter("speculations", "Answers begun in a pause", ["result"])
        self._speculative_requests = counter(
            "speculative_requests", "Requests for answers begun in a pause", ["result"]
        )
        self._failed = counter("engine_failures", "Failed requests to engines", ["stage", "kind"])
        self._tokens = counter(
            "engine_tokens", "What engines took, by kind: tokens, characters, audio_ms", ["model", "kind"]
        )
        self._requests = counter("engine_requests", "Requests of calls", ["stage", "model", "cost"])
        self._cost = counter("engine_cost_usd", "Of requests with known cost", ["model"])
        self._rtp = counter(
            "rtp_packets", "Between Asterisk and the application, of calls that are over", ["kind"]
        )
        self._mos = histogram("caller_mos", "Of the caller's line; see ari_app/rtp/quality.py", MOS_BUCKETS)
        self._jitter = histogram("caller_jitter_seconds", "Of the caller's packets", STAGE_BUCKETS_S)
        self._loss = histogram(
            "caller_loss_ratio",
            "Packets lost on the caller's line",
            (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
        )
        self._recordings_failed = counter("recordings_failed", "Calls whose recording is not whole")
        self._connections = counter("ari_connections", "Times Asterisk took the application")
        self._swept = counter("swept", "Channels and bridges of dead calls taken down")
        self._lag = histogram("loop_lag_seconds", "How late the event loop was", LAG_BUCKETS_S)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A series that is born with its first event hides that event from `increase`."""
        for direction, outcome, by in product(("inbound", "outbound"), Outcome, ("far", "us", "asterisk")):
            self._calls.labels(direction, str(outcome), by)
        for stage, kind in product(ENGINE_STAGES, ENGINE_FAULTS):
            self._failed.labels(stage, kind)
        for known, labels in (
            (self._refused, ("busy", "overloaded", "stopping")),
            (self._turns, ("understood", "not_understood")),
            (self._barge_ins, ("confirmed", "resumed")),
            (self._speculated, ("won", "lost")),
            (self._speculative_requests, ("won", "lost")),
        ):
            for label in labels:
                known.labels(label)

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
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
                self._lasted.labels(direction).observe(time.monotonic() - began_at)
                for kind, count in what.rtp.items():
                    self._rtp.labels(kind).inc(count)
            elif isinstance(what, LineHeard):
                if what.final:
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

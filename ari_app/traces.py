"""Calls and their turns as OpenTelemetry spans, sent by OTLP over HTTP. Shell.

Imported only where the environment names a collector: the packages are the extra `otel`. The standard variables
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on) are the SDK's to read. Spans wait in its
bounded queue for a thread of its own; when the collector is slow or away they are dropped, and calls do not notice.

No span holds a number, a word, or what a server said.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from ari_app import __version__
from ari_app.ari.outcome import Outcome
from ari_app.call import Call
from ari_app.dialog import ports
from ari_app.dialog.waterfall import waterfall
from ari_app.errors import ConfigError
from ari_app.happenings import Ended, Happening, Observer, Progress
from ari_app.metrics import LABELS

logger = logging.getLogger(__name__)

FLUSH_S = 3.0
"""At the end: a collector that takes longer does not hold the process up."""
MAX_WORDS = 300
LONG_DIGITS = re.compile(r"\d{5,}")
"""In a clause that says why a call ended: a telephone number."""

Attribute = str | bool | int | float


class Traces:
    """A `Watcher` of all calls that makes spans of them; to be entered before the first call."""

    def __init__(self) -> None:
        self._open: set[_CallSpans] = set()
        self._words = _LastWords()
        self._provider: TracerProvider
        self._tracer: Tracer

    async def __aenter__(self) -> Traces:
        """Raises ConfigError: the SDK does not take what the environment says."""
        try:
            self._provider = self._build()
        except ValueError as error:
            raise ConfigError(f"an OTEL_ variable of the environment can't be used: {error}.") from None
        self._tracer = self._provider.get_tracer("ari_app", __version__)
        # The SDK tells the log about every batch that fails; we tell it once.
        sdk = logging.getLogger("opentelemetry")
        sdk.addHandler(self._words)
        sdk.propagate = False
        return self

    def _build(self) -> TracerProvider:
        found = Resource.create()
        name = found.attributes[SERVICE_NAME]
        ours = {SERVICE_VERSION: __version__}
        if str(name).startswith("unknown_service"):  # what the SDK calls it when nobody does
            ours[SERVICE_NAME] = "ari_app"
        provider = TracerProvider(resource=found.merge(Resource(ours)), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_Exporter(OTLPSpanExporter(), self._words)))
        return provider

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in tuple(self._open):
            call.end({}, Status(StatusCode.ERROR, "the process ended before the call"))
        # A daemon of our own, because the SDK waits half a minute for a collector that does not answer.
        flush = threading.Thread(target=self._provider.shutdown, name="traces-flush", daemon=True)
        flush.start()
        await asyncio.to_thread(flush.join, FLUSH_S)
        if flush.is_alive():
            logger.warning("the last spans were not delivered within %g s", FLUSH_S)
        sdk = logging.getLogger("opentelemetry")
        sdk.removeHandler(self._words)
        sdk.propagate = True

    # --- Watcher

    def begin(self, call: Call, about: Mapping[str, object]) -> Observer:
        spans = _CallSpans(self._tracer, call, about, self._open)
        return spans.observe

    def refused(self, why: str) -> None:
        """There is no call, and no span."""


class _CallSpans:
    """The spans of one call."""

    def __init__(
        self, tracer: Tracer, call: Call, about: Mapping[str, object], living: set[_CallSpans]
    ) -> None:
        self._tracer = tracer
        self._living = living
        self._loop = asyncio.get_running_loop()
        self._epoch_ns = time.time_ns() - round(self._loop.time() * 1e9)
        """What to add to the loop's clock; one for the whole call, so that its spans agree when the clock is set."""
        self._numbers = [str(about[side]) for side in ("from", "to") if about.get(side)]
        self._turns: dict[int, dict[str, Attribute]] = {}
        """What is known of turns that have no span yet."""
        inbound = about["direction"] == "inbound"
        self._span = tracer.start_span(
            "call",
            kind=SpanKind.SERVER if inbound else SpanKind.CLIENT,
            start_time=self._ns(self._loop.time()),
            attributes={
                "ari_app.call_id": call.call_id,
                "ari_app.direction": str(about["direction"]),
                "ari_app.mode": str(about["mode"]),
                "asterisk.channel_id": call.far_id,
                **({"sip.call_id": str(about["sip_call_id"])} if about.get("sip_call_id") else {}),
            },
        )
        living.add(self)

    def observe(self, what: Happening) -> None:
        match what:
            case Progress(stage=stage):
                self._event(stage)
            case ports.BargeIn(turn=turn, at=at):
                self._event("barge_in", at, turn=turn, kind="confirmed")
            case ports.BargeInDismissed(turn=turn, at=at, paused_ms=paused_ms):
                self._event("barge_in", at, turn=turn, kind="resumed", paused_ms=paused_ms)
            case ports.Speculated(turn=turn, won=won, requests=requests):
                self._event("speculation", turn=turn, kind="won" if won else "lost", requests=requests)
                self._of(turn)["ari_app.speculation"] = "won" if won else "lost"
            case ports.EngineFailed(turn=turn, stage=stage, kind=kind, permanent=permanent):
                self._event("engine_failed", turn=turn, stage=stage, kind=kind, permanent=permanent)
                self._of(turn)["ari_app.failure"] = f"{stage}: {kind}"
            case ports.EngineUsed(call_cost_usd=cost_usd, call_cost_is_partial=partial):
                if cost_usd is not None:
                    self._span.set_attribute("ari_app.cost_usd", cost_usd)
                self._span.set_attribute("ari_app.cost_is_partial", partial)
            case ports.GaveUp():
                self._event("gave_up")
            case ports.TurnTimed():
                self._turn(what)
            case Ended(ending=ending):
                attributes = {
                    "ari_app.outcome": str(ending.outcome),
                    "ari_app.ended_by": ending.by,
                    "ari_app.reason": self._masked(ending.detail),
                }
                failed = ending.outcome is Outcome.FAILED
                self.end(attributes, Status(StatusCode.ERROR) if failed else None)

    def end(self, attributes: Mapping[str, Attribute], status: Status | None) -> None:
        """The call is over."""
        self._living.discard(self)
        self._span.set_attributes(attributes)
        if status is not None:
            self._span.set_status(status)
        self._span.end(self._ns(self._loop.time()))

    def _ns(self, at: float) -> int:
        """A time of the loop's clock as nanoseconds since 1970."""
        return self._epoch_ns + round(at * 1e9)

    def _event(self, name: str, at: float | None = None, /, **attributes: Attribute) -> None:
        named = {f"ari_app.{key}": value for key, value in attributes.items()}
        self._span.add_event(name, named, self._ns(self._loop.time() if at is None else at))

    def _of(self, turn: int) -> dict[str, Attribute]:
        for older in [number for number in self._turns if number < turn]:
            del self._turns[older]
        return self._turns.setdefault(turn, {})

    def _turn(self, timed: ports.TurnTimed) -> None:
        """From the caller's last word to the bot's first, or as far as it came."""
        fall = waterfall(asdict(timed))
        begin, over = timed.speech_end_at, timed.first_frame_at
        stages = [*fall.stages, *fall.ahead]
        turn = self._child(
            self._span,
            "turn",
            begin,
            begin + max((stage.end_ms for stage in stages), default=0) / 1000 if over is None else over,
            {
                "ari_app.turn": timed.turn,
                "ari_app.answered": over is not None,
                **self._turns.pop(timed.turn, {}),
            },
        )
        for stage in stages:  # what was done within the silence window lies beside it
            began, ended = begin + stage.begin_ms / 1000, begin + stage.end_ms / 1000
            self._child(turn, LABELS[stage.name], began, ended)

    def _child(
        self,
        parent: Span,
        name: str,
        begin: float,
        end: float,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> Span:
        context = set_span_in_context(parent)
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=self._ns(begin))
        if attributes and "ari_app.failure" in attributes:
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(end))
        return span

    def _masked(self, text: str) -> str:
        for number in self._numbers:
            text = text.replace(number, "…")
        return LONG_DIGITS.sub("…", text)


class _Exporter(SpanExporter):
    """Sends by another one, and tells the log when that begins to fail, and when it works again."""

    def __init__(self, exporter: SpanExporter, words: _LastWords) -> None:
        self._exporter = exporter
        self._words = words
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        works = result is SpanExportResult.SUCCESS
        if works and not self._works:
            logger.info("spans are delivered again")
        elif self._works and not works:
            logger.warning("spans can't be delivered, and are dropped until they can: %s", self._words.last)
        self._works = works
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _LastWords(logging.Handler):
    """Remembers what the SDK would have told the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = "no reason given"

    def emit(self, record: logging.LogRecord) -> None:
        self.last = " ".join(record.getMessage().split())[:MAX_WORDS]

"""A strict OpenTelemetry collector on loopback: OTLP over HTTP, protobuf; anything else is a fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Event:
    """Something at a moment of a span."""

    name: str
    at_ns: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Span:
    """One span as it came over the wire."""

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    """Empty: none."""
    begin_ns: int
    end_ns: int
    kind: int
    """1 internal, 2 server, 3 client."""
    failed: bool
    attributes: dict[str, Any]
    events: list[Event]


@dataclass
class Collector:
    """What it was sent, and how it behaves."""

    url: str = ""
    status: int = 200
    hang: bool = False
    """It takes requests and never answers."""
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    raw: bytes = b""
    """All request bodies, for words that must not be in them."""
    requests: int = 0
    encodings: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    async def take(self, http: web.Request) -> web.Response:
        self.requests += 1
        body = await http.read()  # decompressed
        self.encodings.add(http.headers.get("Content-Encoding", ""))
        if (http.method, http.path) != ("POST", "/v1/traces"):
            self.faults.append(f"unexpected {http.method} {http.path}")
        if http.content_type != "application/x-protobuf":
            self.faults.append(f"unexpected content type {http.content_type}")
        if self.hang:
            await asyncio.Event().wait()
        if self.status != 200:
            return web.Response(status=self.status)
        try:
            self._decode(body)
        except (DecodeError, AssertionError) as error:
            self.faults.append(f"not an ExportTraceServiceRequest: {error}")
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    def _decode(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        self.raw += body
        for resource in request.resource_spans:
            self.resources.append(_attributes(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += [self._span(span) for span in scope.spans]

    @staticmethod
    def _span(span: Any) -> Span:
        assert len(span.trace_id) == 16 and len(span.span_id) == 8 and len(span.parent_span_id) in (0, 8)
        assert span.name and 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        return Span(
            *(span.name, span.trace_id, span.span_id, span.parent_span_id),
            *(span.start_time_unix_nano, span.end_time_unix_nano, span.kind, span.status.code == 2),
            _attributes(span.attributes),
            [Event(e.name, e.time_unix_nano, _attributes(e.attributes)) for e in span.events],
        )


def _attributes(pairs: Any) -> dict[str, Any]:
    values = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
    assert len(values) == len(pairs), "an attribute came twice"
    return values


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Serve on a free port; leaving checks that all it got was OTLP."""
    collector = Collector()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", collector.take)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
    assert not collector.faults, collector.faults

"""A strict ARI peer on loopback: REST, event websocket and a small model of channels and bridges.

    async with FakeAsterisk() as asterisk:
        client = AriClient(asterisk.url, asterisk.user, asterisk.password, "bot", on_event)
        ...
        asterisk.caller_arrives("1700000000.1", app="bot", number="100")   # StasisStart
        asterisk.hang_up("1700000000.1")                                   # as the far end does
        asterisk.assert_clean()                                            # nothing of ours is left

Events go out before the reply of the request that caused them, as Asterisk's may. A request that the model
does not know, a wrong parameter, or an unused script is a fault; leaving the context then fails the test.

Misbehaviour: `mode` (of every request), `script` (of one), `stuck` (of some), `drop_websockets`, `deaf`, `stop` and
`start`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

HTML_404 = "<html><head><title>404 Not Found</title></head><body>Not Found</body></html>"


@dataclass(frozen=True)
class Operation:
    """One ARI operation as the API description has it; `needed` and `optional` are query parameters."""

    resource: str
    nickname: str
    method: str
    path: str
    returns: str = "void"
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    body: tuple[str, ...] = ()


OPERATIONS = (
    Operation("asterisk", "ping", "GET", "/asterisk/ping", "AsteriskPing"),
    Operation("asterisk", "getInfo", "GET", "/asterisk/info", "AsteriskInfo", optional=("only",)),
    Operation("asterisk", "getGlobalVar", "GET", "/asterisk/variable", "Variable", needed=("variable",)),
    Operation("applications", "get", "GET", "/applications/{applicationName}", "Application"),
    Operation("endpoints", "get", "GET", "/endpoints/{tech}/{resource}", "Endpoint"),
    Operation("applications", "filter", "PUT", "/applications/{applicationName}/eventFilter", "Application"),
    Operation("channels", "list", "GET", "/channels", "List[Channel]"),
    Operation("channels", "get", "GET", "/channels/{channelId}", "Channel"),
    Operation(
        "channels",
        "originate",
        "POST",
        "/channels",
        "Channel",
        needed=("endpoint",),
        optional=("app", "appArgs", "callerId", "timeout", "channelId"),
        body=("variables",),
    ),
    Operation(
        "channels",
        "externalMedia",
        "POST",
        "/channels/externalMedia",
        "Channel",
        needed=("app", "format"),
        optional=("channelId", "external_host"),
    ),
    Operation("channels", "hangup", "DELETE", "/channels/{channelId}", optional=("reason",)),
    Operation("channels", "answer", "POST", "/channels/{channelId}/answer"),
    Operation("channels", "ring", "POST", "/channels/{channelId}/ring"),
    Operation(
        "channels",
        "continueInDialplan",
        "POST",
        "/channels/{channelId}/continue",
        optional=("context", "extension", "priority"),
    ),
    Operation(
        "channels",
        "setChannelVar",
        "POST",
        "/channels/{channelId}/variable",
        needed=("variable",),
        optional=("value",),
    ),
    Operation(
        "channels", "getChannelVar", "GET", "/channels/{channelId}/variable", "Variable", needed=("variable",)
    ),
    Operation("channels", "rtpstatistics", "GET", "/channels/{channelId}/rtp_statistics", "RTPstat"),
    Operation("channels", "sendDTMF", "POST", "/channels/{channelId}/dtmf", optional=("dtmf",)),
    Operation("bridges", "list", "GET", "/bridges", "List[Bridge]"),
    Operation("bridges", "create", "POST", "/bridges", "Bridge", optional=("type", "bridgeId", "name")),
    Operation("bridges", "destroy", "DELETE", "/bridges/{bridgeId}"),
    Operation(
        "bridges",
        "addChannel",
        "POST",
        "/bridges/{bridgeId}/addChannel",
        needed=("channel",),
        optional=("mute", "inhibitConnectedLineUpdates"),
    ),
    Operation("events", "eventWebsocket", "GET", "/events", "Message", needed=("app",)),
)


class Refused(Exception):
    """Ends a request with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Channel:
    """A channel of the model. `app` is the Stasis application that has it, empty when none has."""

    id: str
    name: str
    state: str
    app: str = ""
    number: str = ""
    dialled_app: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    rtp: socket.socket | None = None
    """Where an ExternalMedia channel receives."""
    external_host: str = ""
    """Where it sends."""
    answered: bool = False

    def json(self) -> dict[str, Any]:
        stasis = (
            {"app_name": "Stasis", "app_data": self.app} if self.app else {"app_name": "", "app_data": ""}
        )
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "protocol_id": f"{self.id}@127.0.0.1" if self.name.startswith("PJSIP/") else "",
            "caller": {"name": "", "number": self.number},
            "connected": {"name": "", "number": ""},
            "accountcode": "",
            "dialplan": {"context": "bot", "exten": "100", "priority": 1, **stasis},
            "creationtime": "2026-11-22T00:00:00.000+0000",
            "language": "en",
        }


@dataclass
class Script:
    """What the next request of this method and path prefix gets instead of, or before, its answer."""

    method: str
    prefix: str
    status: int | None
    body: str
    delay_s: float
    carry_out_first: bool = False
    held: Held | None = None


@dataclass(frozen=True)
class Held:
    """A request that waits for the test."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


class FakeAsterisk:
    """See the module's text."""

    def __init__(self, *, user: str = "ari_app", password: str = "s3cret &#?/") -> None:
        self.user = user
        self.password = password
        self.mode = "up"
        """up; booting (404 in HTML); not_booted (503); unauthorized (401); frozen (never answers)."""
        self.deaf = False
        """Websockets stay open but neither send nor answer pings: a half-open connection."""
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        """(method, path without /ari, query, body) of each request that the model answered."""
        self.rtp_conf: dict[str, str] = {}
        """What func_config tells; empty: the module is not there."""
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, list[str]] = {}
        self.filters: dict[str, Any] = {}
        self.faults: list[str] = []
        self.connections = 0
        """Event websockets opened so far."""
        self.unknown_endpoints: set[str] = set()
        self.endpoints: dict[str, str] = {}
        """State by technology/resource."""
        self.variables: dict[str, str] = {"EPOCH": str(int(time.time()))}
        """Global ones."""
        self.relay: Callable[[int, bytes], bytes | None] = lambda index, packet: packet
        """What becomes of the RTP between two media channels in one bridge; None: the packet is lost."""
        self.relay_delay_s = 0.0
        self.stuck: set[tuple[str, str]] = set()
        """Method and path of requests that are never answered, as when a channel's lock is never given back."""
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._scripts: list[Script] = []
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._opened: dict[web.WebSocketResponse, web.Request] = {}
        self._tasks: set[asyncio.Future[None]] = set()

    # --- life

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> FakeAsterisk:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        await self.stop()
        for channel in self.channels.values():
            if channel.rtp:
                asyncio.get_running_loop().remove_reader(channel.rtp)
                channel.rtp.close()
        if kind is None:
            unused = [f"script not used: {script}" for script in self._scripts]
            assert not self.faults + unused, self.faults + unused

    async def start(self) -> None:
        """Listen; after `stop`, on the same port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Nobody listens any more; websockets break without a close frame."""
        self.drop_websockets()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    # --- what a test makes it do

    def script(
        self,
        method: str,
        prefix: str,
        *,
        status: int | None = None,
        body: str = "",
        delay_s: float = 0.0,
        carry_out_first: bool = False,
    ) -> None:
        """The next such request gets `status` and `body`; without a status, its answer after `delay_s`.

        With `carry_out_first` it is only the reply that is late or wrong.
        """
        self._scripts.append(Script(method, prefix, status, body, delay_s, carry_out_first))

    def hold(self, method: str, prefix: str) -> Held:
        """The next such request sets `reached`, and is carried out when `go` is set."""
        held = Held()
        self._scripts.append(Script(method, prefix, None, "", 0.0, held=held))
        return held

    def drop_websockets(self) -> None:
        """As when Asterisk dies: no close frame."""
        for request in self._opened.values():
            if request.transport is not None:
                request.transport.abort()
        self._opened.clear()
        self._sockets.clear()

    def send(self, app: str, event: dict[str, Any] | str) -> None:
        """Send any event, or raw text, to the application; lost without a websocket, as in Asterisk."""
        websocket = self._sockets.get(app)
        if websocket is None or websocket.closed or self.deaf:
            return
        text = event if isinstance(event, str) else json.dumps({"application": app, **event})
        self._tasks.add(task := asyncio.ensure_future(_write(websocket, text)))
        task.add_done_callback(self._tasks.discard)

    def event(self, channel_id: str, kind: str, *, key: str = "channel", **fields: Any) -> None:
        """Send an event about a channel to the application that has or dialled it."""
        channel = self.channels[channel_id]
        self.send(channel.app or channel.dialled_app, {"type": kind, key: channel.json(), **fields})

    def caller_arrives(
        self, channel_id: str, *, app: str, number: str = "100", extension: str = "100"
    ) -> None:
        """An inbound call runs into Stasis(app,inbound,extension)."""
        self.channels[channel_id] = Channel(channel_id, "PJSIP/caller-1", "Ring", app, number)
        self.event(channel_id, "StasisStart", args=["inbound", extension])

    def rings(self, channel_id: str) -> None:
        """The callee's phone rings."""
        self.channels[channel_id].state = "Ringing"
        self.event(channel_id, "Dial", key="peer", dialstatus="RINGING")
        self.event(channel_id, "ChannelStateChange")

    def answers(self, channel_id: str) -> None:
        """The callee answers: the channel enters the application that dialled it."""
        channel = self.channels[channel_id]
        channel.state, channel.app = "Up", channel.dialled_app
        self.event(channel_id, "Dial", key="peer", dialstatus="ANSWER")
        self.event(channel_id, "ChannelStateChange")
        self.event(channel_id, "StasisStart", args=[])

    def refuses(self, channel_id: str, sip_status: int, cause: int, dialstatus: str = "NOANSWER") -> None:
        """The callee's side ends the attempt."""
        self.event(channel_id, "Dial", key="peer", dialstatus=dialstatus)
        self._destroy(channel_id, cause, sip_status)

    def hang_up(self, channel_id: str, cause: int = 16) -> None:
        """The far end hangs up."""
        self.event(channel_id, "ChannelHangupRequest")
        self._destroy(channel_id, cause)

    def vanish(self, channel_id: str) -> None:
        """A channel ends without a request of anybody."""
        self._destroy(channel_id, 0)

    def press(self, channel_id: str, digit: str) -> None:
        """The far end presses a key."""
        self.event(channel_id, "ChannelDtmfReceived", digit=digit, duration_ms=100)

    def is_registered(self, app: str) -> bool:
        """True while the application has an event websocket."""
        return app in self._sockets

    def assert_clean(self, *foreign: str) -> None:
        """No channel or bridge is left but those given."""
        left = (set(self.channels) | set(self.bridges)) - set(foreign)
        assert not left, left

    def asked(self, method: str, path: str) -> list[dict[str, str]]:
        """Queries of the requests of this method whose path ends like this."""
        return [query for got, where, query, _ in self.requests if got == method and where.endswith(path)]

    def _destroy(self, channel_id: str, cause: int, tech_cause: int | None = None) -> None:
        channel = self.channels[channel_id]
        for bridge_id, members in self.bridges.items():
            if channel_id in members:
                members.remove(channel_id)
                self._left_bridge(channel_id, bridge_id)
        if channel.app:
            self.event(channel_id, "StasisEnd")
        fields: dict[str, Any] = {"cause": cause, "cause_txt": "Normal Clearing" if cause == 16 else "Other"}
        if tech_cause is not None:
            fields["tech_cause"] = tech_cause
        self.event(channel_id, "ChannelDestroyed", **fields)
        if channel.rtp:
            asyncio.get_running_loop().remove_reader(channel.rtp)
            channel.rtp.close()
        del self.channels[channel_id]

    def _left_bridge(self, channel_id: str, bridge_id: str) -> None:
        self.event(channel_id, "ChannelLeftBridge", bridge={"id": bridge_id, "channels": []})

    # --- requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if self.mode == "frozen":
            await asyncio.sleep(3600)
        if refusal is not None:
            return refusal
        path = request.path.removeprefix("/ari")
        if (request.method, path) in self.stuck:
            await asyncio.sleep(3600)
        for script in self._scripts:
            if script.method == request.method and path.startswith(script.prefix):
                self._scripts.remove(script)
                reply = await self._answer(request, path) if script.carry_out_first else None
                if script.held is not None:
                    script.held.reached.set()
                    await script.held.go.wait()
                await asyncio.sleep(script.delay_s)
                if script.status is not None:
                    return web.Response(status=script.status, text=script.body)
                if reply is not None:
                    return reply
                break
        return await self._answer(request, path)

    async def _answer(self, request: web.Request, path: str) -> web.StreamResponse:
        if path.startswith("/api-docs/"):
            return self._api_docs(path)
        found = self._find(request.method, path)
        if found is None:
            self.faults.append(f"unexpected {request.method} {request.path_qs}")
            return web.json_response({"message": "Invalid method"}, status=405)
        operation, place = found
        if operation.nickname == "eventWebsocket":
            return await self._websocket(request)
        try:
            query, body = await self._arguments(request, operation)
            self.requests.append((request.method, path, query, body))
            answer = getattr(self, f"_{operation.resource}_{operation.nickname}")({**query, **place}, body)
        except Refused as refused:
            return web.json_response({"message": str(refused)}, status=refused.status)
        await asyncio.sleep(0)  # let the events of it go first
        return web.Response(status=204) if answer is None else web.json_response(answer)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.mode == "booting":
            return web.Response(status=404, text=HTML_404, content_type="text/html")
        if self.mode == "not_booted":
            return web.json_response({"message": "Asterisk not booted"}, status=503)
        if "api_key" in request.query:
            self.faults.append("the password is in the URL")
        expected = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if self.mode == "unauthorized" or request.headers.get("Authorization") != f"Basic {expected}":
            return web.json_response({"message": "Authentication required"}, status=401)
        return None

    def _find(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        parts = path.split("/")
        # Fixed paths first: /channels/externalMedia is not the channel of that name.
        for operation in sorted(OPERATIONS, key=lambda o: o.path.count("{")):
            wanted = operation.path.split("/")
            if operation.method != method or len(parts) != len(wanted):
                continue
            if all(want in (part, f"{{{want[1:-1]}}}") for part, want in zip(parts, wanted, strict=True)):
                return operation, {
                    w[1:-1]: p for p, w in zip(parts, wanted, strict=True) if w.startswith("{")
                }
        return None

    async def _arguments(self, request: web.Request, operation: Operation) -> tuple[dict[str, str], Any]:
        query = dict(request.query)
        wrong = set(query) - set(operation.needed) - set(operation.optional)
        if wrong:
            self.faults.append(f"{operation.nickname} has no parameters {wrong}")
        missing = set(operation.needed) - set(query)
        if missing:
            raise Refused(400, f"missing {missing}")
        for name in ("mute", "inhibitConnectedLineUpdates"):
            if query.get(name, "true") not in {"true", "false"}:
                self.faults.append(f"{name}={query[name]} is not a boolean of ARI")
        text = await request.text()
        return query, json.loads(text) if text else None

    def _api_docs(self, path: str) -> web.Response:
        # The address in it is one that only Asterisk knows, as behind a proxy or in a container.
        base = "http://asterisk.invalid:1/ari"
        name = path.removeprefix("/api-docs/").removesuffix(".json")
        if name == "resources":
            names = sorted({operation.resource for operation in OPERATIONS})
            listed = [{"path": f"/api-docs/{n}.{{format}}", "description": n} for n in names]
            return web.json_response({"swaggerVersion": "1.1", "basePath": base, "apis": listed})
        apis = [
            {"path": o.path, "description": o.nickname, "operations": [_described(o)]}
            for o in OPERATIONS
            if o.resource == name
        ]
        about = {"swaggerVersion": "1.1", "basePath": base, "resourcePath": f"/api-docs/{name}"}
        return web.json_response({**about, "apis": apis, "models": {}})

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        app = request.query["app"]
        websocket = web.WebSocketResponse(autoping=False)
        await websocket.prepare(request)
        self.connections += 1
        self.send(app, {"type": "ApplicationReplaced"})
        self._sockets[app] = websocket
        self._opened[websocket] = request
        async for message in websocket:
            if message.type is WSMsgType.PING and not self.deaf:
                await websocket.pong(message.data)
        self._opened.pop(websocket, None)
        if self._sockets.get(app) is websocket:
            del self._sockets[app]
        return websocket

    # --- the model: one method per operation, named by resource and nickname

    def _channel(self, place: dict[str, str], *, in_stasis: bool = False) -> Channel:
        channel = self.channels.get(place["channelId"])
        if channel is None:
            raise Refused(404, "Channel not found")
        if in_stasis and not channel.app:
            raise Refused(409, "Channel not in Stasis application")
        return channel

    def _check_new(self, new_id: str) -> None:
        if any(living.lower().startswith(new_id.lower()) for living in self.channels):
            raise Refused(409, "Channel with given unique ID already exists")

    def _asterisk_ping(self, place: dict[str, str], body: Any) -> Any:
        return {"ping": "pong", "timestamp": "", "asterisk_id": "fake"}

    def _asterisk_getInfo(self, place: dict[str, str], body: Any) -> Any:
        return {"system": {"version": "22.10.1", "entity_id": "fake"}}

    def _asterisk_getGlobalVar(self, place: dict[str, str], body: Any) -> Any:
        return {"value": self.variables.get(place["variable"], "")}

    def _applications_get(self, place: dict[str, str], body: Any) -> Any:
        if place["applicationName"] not in self._sockets:
            raise Refused(404, "Application not found")
        return {"name": place["applicationName"]}

    def _endpoints_get(self, place: dict[str, str], body: Any) -> Any:
        state = self.endpoints.get(f"{place['tech']}/{place['resource']}")
        if state is None:
            raise Refused(404, "Endpoint not found")
        return {"technology": place["tech"], "resource": place["resource"], "state": state}

    def _applications_filter(self, place: dict[str, str], body: Any) -> Any:
        if place["applicationName"] not in self._sockets:
            raise Refused(404, "Application not found")
        self.filters[place["applicationName"]] = body
        return {"name": place["applicationName"]}

    def _channels_list(self, place: dict[str, str], body: Any) -> Any:
        return [channel.json() for channel in self.channels.values()]

    def _channels_get(self, place: dict[str, str], body: Any) -> Any:
        return self._channel(place).json()

    def _channels_originate(self, place: dict[str, str], body: Any) -> Any:
        if place["endpoint"] in self.unknown_endpoints:
            raise Refused(500, "Allocation failed")
        self._check_new(place["channelId"])
        channel = Channel(
            place["channelId"], f"{place['endpoint']}-00000001", "Down", dialled_app=place["app"]
        )
        channel.variables = dict((body or {}).get("variables", {}))
        self.channels[channel.id] = channel
        self.event(channel.id, "Dial", key="peer", dialstatus="")
        return channel.json()

    def _channels_externalMedia(self, place: dict[str, str], body: Any) -> Any:
        self._check_new(place["channelId"])
        rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rtp.bind(("127.0.0.1", 0))
        rtp.setblocking(False)
        channel = Channel(place["channelId"], "UnicastRTP/1", "Down", dialled_app=place["app"], rtp=rtp)
        channel.external_host = place.get("external_host", "")
        self.channels[channel.id] = channel
        host, port = rtp.getsockname()
        where = {"UNICASTRTP_LOCAL_ADDRESS": host, "UNICASTRTP_LOCAL_PORT": str(port)}
        reply = {**channel.json(), "channelvars": where}
        if place["app"] in self._sockets:
            self.answers(channel.id)
        else:  # "Stasis app not active" is in Asterisk's log only
            self._destroy(channel.id, 0)
        return reply

    def _channels_hangup(self, place: dict[str, str], body: Any) -> None:
        channel = self._channel(place)
        self.event(channel.id, "ChannelHangupRequest", soft=True, cause=32)
        self._destroy(channel.id, 16)

    def _channels_answer(self, place: dict[str, str], body: Any) -> None:
        channel = self._channel(place, in_stasis=True)
        channel.answered, channel.state = True, "Up"
        self.event(channel.id, "ChannelStateChange")

    def _channels_ring(self, place: dict[str, str], body: Any) -> None:
        self._channel(place, in_stasis=True)

    def _channels_continueInDialplan(self, place: dict[str, str], body: Any) -> None:
        channel = self._channel(place, in_stasis=True)
        self.event(channel.id, "StasisEnd")
        channel.app = ""

    def _channels_setChannelVar(self, place: dict[str, str], body: Any) -> None:
        self._channel(place, in_stasis=True).variables[place["variable"]] = place.get("value", "")

    def _channels_rtpstatistics(self, place: dict[str, str], body: Any) -> Any:
        self._channel(place, in_stasis=True)
        return {
            "txcount": 500,
            "rxcount": 490,
            "txploss": 5,
            "rxploss": 10,
            "txjitter": 0.002,
            "rxjitter": 0.01,
            "rtt": 0.06,
            "channel_uniqueid": place["channelId"],
        }

    def _channels_getChannelVar(self, place: dict[str, str], body: Any) -> Any:
        variables = self._channel(place, in_stasis=True).variables | self.rtp_conf
        if place["variable"] not in variables:
            raise Refused(404, "Provided variable was not found")
        return {"value": variables[place["variable"]]}

    def _channels_sendDTMF(self, place: dict[str, str], body: Any) -> None:
        self._channel(place, in_stasis=True)

    def _bridges_list(self, place: dict[str, str], body: Any) -> Any:
        return [self._bridge_json(bridge_id) for bridge_id in self.bridges]

    def _bridges_create(self, place: dict[str, str], body: Any) -> Any:
        if place["bridgeId"] in self.bridges:
            raise Refused(409, "Bridge with same ID already exists")
        self.bridges[place["bridgeId"]] = []
        return self._bridge_json(place["bridgeId"])

    def _bridges_destroy(self, place: dict[str, str], body: Any) -> None:
        if place["bridgeId"] not in self.bridges:
            raise Refused(404, "Bridge not found")
        for channel_id in self.bridges.pop(place["bridgeId"]):
            self._left_bridge(channel_id, place["bridgeId"])

    def _bridges_addChannel(self, place: dict[str, str], body: Any) -> None:
        if place["bridgeId"] not in self.bridges:
            raise Refused(404, "Bridge not found")
        wanted = place["channel"].split(",")
        for channel_id in wanted:
            if channel_id not in self.channels:
                raise Refused(400, "Channel not found")
            self._channel({"channelId": channel_id}, in_stasis=True)
        self.bridges[place["bridgeId"]] += wanted
        members = [self.channels[channel_id] for channel_id in self.bridges[place["bridgeId"]]]
        if len(members) == 2 and all(member.rtp for member in members):
            self._relay_between(*members)

    def _relay_between(self, one: Channel, other: Channel) -> None:
        """Two media channels hear each other; with a phone in the bridge the test does it by hand."""
        counts = {one.id: 0, other.id: 0}

        def send(peer: Channel, packet: bytes) -> None:
            if peer.rtp is not None and peer.rtp.fileno() != -1:
                host, _, port = peer.external_host.rpartition(":")
                peer.rtp.sendto(packet, (host, int(port)))

        def forward(channel: Channel, peer: Channel) -> None:
            assert channel.rtp is not None
            packet = self.relay(counts[channel.id], channel.rtp.recv(2048))
            counts[channel.id] += 1
            if packet is not None:
                asyncio.get_running_loop().call_later(self.relay_delay_s, send, peer, packet)

        for channel, peer in ((one, other), (other, one)):
            assert channel.rtp is not None
            asyncio.get_running_loop().add_reader(channel.rtp, forward, channel, peer)

    def _bridge_json(self, bridge_id: str) -> dict[str, Any]:
        return {"id": bridge_id, "name": "", "channels": self.bridges[bridge_id], "bridge_type": "mixing"}


def _described(operation: Operation) -> dict[str, Any]:
    """The operation in the form of Asterisk's API description (Swagger 1.1)."""
    parameters = [
        {"name": part[1:-1], "paramType": "path", "required": True, "dataType": "string"}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    for kind, names in (("query", operation.needed + operation.optional), ("body", operation.body)):
        parameters += [
            {"name": n, "paramType": kind, "required": n in operation.needed, "dataType": "string"}
            for n in names
        ]
    described: dict[str, Any] = {
        "httpMethod": operation.method,
        "nickname": operation.nickname,
        "responseClass": operation.returns,
        "parameters": parameters,
    }
    return {**described, "upgrade": "websocket"} if operation.nickname == "eventWebsocket" else described


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for what has no event of its own."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def _write(websocket: web.WebSocketResponse, text: str) -> None:
    if not websocket.closed:
        await websocket.send_str(text)

"""Asterisk's REST interface: a typed method per request we make, over aioari's operations. Shell."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import aioari
from aioswagger11.processors import SwaggerError

from ari_app.ari.events import Bridge, Channel, parse_bridge, parse_channel
from ari_app.ari.faults import NO_ENDPOINT
from ari_app.ari.room import RtpRoom
from ari_app.ari.transport import Transport
from ari_app.errors import AriConflict, AriError, AriNotFound, AriUnreachable
from ari_app.rtp.quality import LineQuality, parse_quality

logger = logging.getLogger(__name__)

T = TypeVar("T")

RESULT_VARIABLE = "ARI_APP_RESULT"
"""Channel variable that tells the dialplan how the conversation went."""
REASON_VARIABLE = "ARI_APP_REASON"
MAX_REASON_CHARS = 160

NOISE = ("ChannelVarset", "ChannelDialplan")
"""Events nobody reads: about a dozen per call and hang-up."""


class AriRest:
    """The requests. All raise `AriError` or one of its kinds; deleting what is gone already succeeds.

    Args:
        app: the Stasis application that new channels enter.
    """

    def __init__(self, transport: Transport, app: str) -> None:
        self.app = app
        self._transport = transport
        self._client: Any = None  # aioari.Client, which has no types
        self._room = RtpRoom(self.get_variable, self.list_channels)

    # --- Asterisk itself

    async def open(self) -> None:
        """Wait-free gate before all else: Asterisk is up, and aioari has its API description (40 ms).

        Raises:
            AriUnreachable: nobody answers, or Asterisk is still starting.
            AriUnauthorized: wrong user or password.
        """
        await self.ping()
        self._room.forget()
        if self._client is None:
            client = aioari.Client(f"{self._transport.url}/", self._transport)
            attempted = "load the API description of Asterisk"
            try:
                await self._do(attempted, client.init)
            except (
                SwaggerError,
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                raise AriError(attempted, None, f"aioari cannot read it: {error!r:.200}") from error
            self._client = client

    async def ping(self) -> None:
        """Succeeds when Asterisk is up and has finished starting; needs no API description."""
        ping = f"{self._transport.url}/ari/asterisk/ping"
        await self._do("reach Asterisk", self._transport.request, method="GET", url=ping)

    async def version(self) -> str:
        """Asterisk's version, e.g. "22.10.1+dfsg"."""
        info = await self._call("ask for the version", "asterisk", "getInfo", only=["system"])
        return str(_object(_object(info).get("system")).get("version", ""))

    async def is_connected(self, app: str) -> bool:
        """True while some process has the Stasis application `app`."""
        try:
            await self._call(
                f"look for the Stasis application {app}", "applications", "get", applicationName=app
            )
        except AriNotFound:
            return False
        return True

    async def endpoint_state(self, technology: str, resource: str) -> str:
        """online, offline or unknown: what qualifying the endpoint says, not whether it is registered.

        Raises:
            AriNotFound: there is no such endpoint.
        """
        attempted = f"look for the endpoint {technology}/{resource}"
        reply = await self._call(attempted, "endpoints", "get", tech=technology, resource=resource)
        return str(_object(reply).get("state", "unknown"))

    async def global_variable(self, name: str) -> str:
        """A global variable; empty when it is not set."""
        attempted = f"read the global variable {name}"
        reply = await self._call(attempted, "asterisk", "getGlobalVar", variable=name)
        return str(_object(reply).get("value", ""))

    async def filter_events(self) -> None:
        """Ask Asterisk to keep the noise to itself. Lasts as long as the application is registered."""
        kinds = [{"type": kind} for kind in NOISE]
        # aioswagger11 wraps a body by the name of its parameter, which this operation's body must not be.
        await self._do(
            "filter the events",
            self._transport.request,
            method="PUT",
            url=f"{self._transport.url}/ari/applications/{self.app}/eventFilter",
            data=json.dumps({"disallowed": kinds}),
            headers={"Content-Type": "application/json"},
        )

    async def event_websocket(self) -> Any:
        """Register the application; an `aiohttp.ClientWebSocketResponse` to be closed by the caller."""
        attempted = f"register the Stasis application {self.app}"
        client = self._opened(attempted)
        return await self._do(attempted, client.swagger.events.eventWebsocket, app=self.app)

    # --- channels

    async def list_channels(self) -> list[Channel]:
        """All channels of this Asterisk."""
        attempted = "list the channels"
        return _all(attempted, parse_channel, await self._call(attempted, "channels", "list"))

    async def originate(
        self,
        channel_id: str,
        endpoint: str,
        *,
        app_args: str = "",
        caller_id: str = "",
        timeout_s: int,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Dial `endpoint` (e.g. PJSIP/100@trunk); on answer the channel enters our application.

        Raises:
            AriNotFound: Asterisk has no such endpoint, or it is not reachable.
        """
        attempted = f"dial {_without_number(endpoint)}"
        try:
            reply = await self._call(
                attempted,
                "channels",
                "originate",
                channelId=channel_id,
                endpoint=endpoint,
                app=self.app,
                appArgs=app_args or None,
                callerId=caller_id or None,
                timeout=timeout_s,
                variables=dict(variables) if variables else None,
            )
        except AriConflict as error:
            # On a connection that once had a real conflict, Asterisk says "unique ID already exists" for any
            # endpoint it cannot reach. Our ids are never used twice.
            raise AriNotFound(attempted, error.status, NO_ENDPOINT) from None
        except AriError as error:
            if error.message == NO_ENDPOINT:
                raise AriNotFound(attempted, error.status, NO_ENDPOINT) from None
            raise
        name = _text(reply, "name")  # which may hold the number
        logger.info(
            "dialing by channel %s (%.16s/…-%.16s), SIP Call-ID %.128s",
            *(channel_id, name.partition("/")[0], name.rpartition("-")[2]),
            _text(reply, "protocol_id") or "unknown",
        )

    async def external_media(
        self,
        channel_id: str,
        external_host: str,
        format: str = "slin",
        *,
        beside: str = "",
        wanted: Callable[[], bool] = lambda: True,
    ) -> tuple[str, int]:
        """An RTP channel that sends to `external_host` ("ip:port"); returns where Asterisk listens.

        It can be bridged once it has entered the application (StasisStart). `beside` is the channel it is for;
        `wanted` is asked when the turn has come, which takes some seconds if Asterisk is slow.

        Raises:
            AriFull: all but a few of Asterisk's RTP ports are taken.
        """
        attempted = f"open the media channel {channel_id} to {external_host}"
        room = self._room.needed(attempted, beside, wanted) if beside else contextlib.nullcontext()
        async with room:
            reply = await self._call(
                attempted,
                "channels",
                "externalMedia",
                channelId=channel_id,
                app=self.app,
                external_host=external_host,
                format=format,
            )
        variables = _object(_object(reply).get("channelvars"))
        try:
            return str(variables["UNICASTRTP_LOCAL_ADDRESS"]), int(variables["UNICASTRTP_LOCAL_PORT"])
        except (KeyError, ValueError):
            raise AriError(attempted, None, "Asterisk did not say where it listens for RTP") from None

    async def answer(self, channel_id: str) -> None:
        """Answer an inbound channel."""
        await self._call(f"answer channel {channel_id}", "channels", "answer", channelId=channel_id)

    async def hangup(self, channel_id: str, reason: str = "normal") -> None:
        """`reason`: normal, busy, congestion, no_answer, ..."""
        with contextlib.suppress(AriNotFound):
            await self._call(
                f"hang up channel {channel_id}", "channels", "hangup", channelId=channel_id, reason=reason
            )

    async def continue_in_dialplan(
        self, channel_id: str, *, context: str = "", extension: str = "", priority: int | None = None
    ) -> None:
        """Leave our application; without a place, at the step after Stasis()."""
        await self._call(
            f"return channel {channel_id} to the dialplan",
            "channels",
            "continueInDialplan",
            channelId=channel_id,
            context=context or None,
            extension=extension or None,
            priority=priority,
        )

    async def get_variable(self, channel_id: str, name: str) -> str:
        """A channel variable, or what a dialplan function says."""
        attempted = f"read {name} of channel {channel_id}"
        reply = await self._call(attempted, "channels", "getChannelVar", channelId=channel_id, variable=name)
        return _text(reply, "value")

    async def hand_back(self, channel_id: str, result: str, reason: str = "") -> None:
        """Set ARI_APP_RESULT, which is a word, and ARI_APP_REASON in harmless characters, and go on in the dialplan.

        Raises:
            ValueError: it is none; the dialplan compares it in expressions, where a quote would begin code.
        """
        if not re.fullmatch(r"[a-z0-9_-]{1,40}", result):
            raise ValueError(f"not a word for the dialplan: {result!r:.60}")
        await self.set_variable(channel_id, RESULT_VARIABLE, result)
        if reason:
            await self.set_variable(channel_id, REASON_VARIABLE, dialplan_safe(reason))
        await self.continue_in_dialplan(channel_id)

    async def line_quality(self, channel_id: str) -> LineQuality:
        """What RTCP says of a channel with RTP.

        Raises:
            AriError: it has none, or is gone.
        """
        attempted = f"ask for the line of channel {channel_id}"
        return parse_quality(
            _object(await self._call(attempted, "channels", "rtpstatistics", channelId=channel_id))
        )

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        """Set a channel variable or dialplan function."""
        await self._call(
            f"set {name} of channel {channel_id}",
            "channels",
            "setChannelVar",
            channelId=channel_id,
            variable=name,
            value=value,
        )

    # --- bridges

    async def list_bridges(self) -> list[Bridge]:
        """All bridges of this Asterisk."""
        attempted = "list the bridges"
        return _all(attempted, parse_bridge, await self._call(attempted, "bridges", "list"))

    async def create_bridge(self, bridge_id: str, name: str = "") -> None:
        """A mixing bridge with that id."""
        await self._call(
            f"create bridge {bridge_id}",
            "bridges",
            "create",
            bridgeId=bridge_id,
            type="mixing",
            name=name or None,
        )

    async def delete_bridge(self, bridge_id: str) -> None:
        """Its channels leave it and stay."""
        with contextlib.suppress(AriNotFound):
            await self._call(f"delete bridge {bridge_id}", "bridges", "destroy", bridgeId=bridge_id)

    async def add_channels(self, bridge_id: str, channel_ids: Sequence[str]) -> None:
        """Put channels, which are in our application, into the bridge."""
        await self._call(
            f"put channels into bridge {bridge_id}",
            "bridges",
            "addChannel",
            bridgeId=bridge_id,
            channel=list(channel_ids),
        )

    # --- over aioari

    def _opened(self, attempted: str) -> Any:
        if self._client is None:
            raise AriUnreachable(attempted, None, "there was no connection to Asterisk yet")
        return self._client

    async def _call(self, attempted: str, resource: str, operation: str, /, **arguments: Any) -> Any:
        """One of aioari's operations; the JSON of the reply, None when it has none.

        Its model objects are left out: they fail on what is not as they expect it.
        """
        client = self._opened(attempted)
        request = getattr(client.get_repo(resource).api, operation)
        given = {name: value for name, value in arguments.items() if value is not None}  # it refuses None
        response = await self._do(attempted, request, **given)
        text = await response.text()
        try:
            return json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise AriError(attempted, response.status, f"the reply is {error}") from error

    async def _do(self, attempted: str, request: Callable[..., Awaitable[Any]], **arguments: Any) -> Any:
        """The request with its errors in the words of what was attempted."""
        try:
            return await request(**arguments)
        except AriError as error:
            raise type(error)(attempted, error.status, error.message) from error.__cause__


def _without_number(endpoint: str) -> str:
    """Dialled numbers do not belong into errors and logs: all but the last three digits are hidden."""
    return re.sub(r"\d(?=\d{3})", "*", endpoint)


def _object(reply: Any) -> Mapping[str, Any]:
    return reply if isinstance(reply, dict) else {}


def _text(reply: Any, name: str) -> str:
    value = _object(reply).get(name)
    return value if isinstance(value, str) else ""


def _all(attempted: str, parse: Callable[[Any], T], reply: Any) -> list[T]:
    try:
        if not isinstance(reply, list):
            raise ValueError(f"the reply must be a list, not {type(reply).__name__}")
        return [parse(item) for item in reply]
    except ValueError as error:
        raise AriError(attempted, None, str(error)) from error


def dialplan_safe(text: str) -> str:
    """Text for a channel variable, without what an expression, an application's arguments or a shell would take for
    more than a character (README-SERIOUSLY.bestpractices of Asterisk, "Filtering data")."""
    return " ".join(re.sub(r"[^A-Za-z0-9.:_-]+", " ", text).split())[:MAX_REASON_CHARS]

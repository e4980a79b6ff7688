"""Asterisk's JSON to dataclasses: the events we act on, and the channels and bridges in replies. Core.

Source: "Asterisk REST Data Models" in the documentation of Asterisk 22. Kinds we have no use for are kept as
`UnknownEvent`; an event that lacks a field we need is a ValueError that names the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
STASIS = "Stasis"
"""The dialplan application by which an ARI application has a channel."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as ARI shows it."""

    id: str
    name: str
    state: str
    """Down, Ring (inbound, not answered), Ringing (outbound), Up, ..."""
    caller_name: str = ""
    caller_number: str = ""
    exten: str = ""
    """Extension that it reached, or was dialled."""
    app_name: str = ""
    """Dialplan application it executes; STASIS while an ARI application has it."""
    app_data: str = ""
    """That application's arguments; of Stasis, the name of the ARI application comes first."""
    protocol_id: str = ""
    """Call-ID of a SIP channel."""

    def in_stasis(self, app: str) -> bool:
        """True while the Stasis application `app` has it."""
        return self.app_name == STASIS and self.app_data.split(",")[0] == app


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge as ARI shows it."""

    id: str
    name: str
    channel_ids: tuple[str, ...]


# --- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StasisStart:
    """A channel entered our application."""

    channel: Channel
    args: tuple[str, ...] = ()
    """Arguments of Stasis() in the dialplan after the application's name, or `appArgs` of an originate."""

    @property
    def channel_id(self) -> str:
        """Id of that channel."""
        return self.channel.id


@dataclass(frozen=True, slots=True)
class StasisEnd:
    """A channel left our application: hung up, or gone on in the dialplan."""

    channel_id: str


@dataclass(frozen=True, slots=True)
class ChannelStateChange:
    """A channel's state changed, e.g. to Ringing or Up."""

    channel_id: str
    state: str


@dataclass(frozen=True, slots=True)
class ChannelHangupRequest:
    """Somebody hung up: the far end, or (`soft`) Asterisk itself, on our request or another's."""

    channel_id: str
    soft: bool
    cause: int | None = None


@dataclass(frozen=True, slots=True)
class ChannelDestroyed:
    """A channel is gone."""

    channel_id: str
    cause: int | None
    """Q.850 cause."""
    cause_txt: str = ""
    tech_cause: int | None = None
    """The SIP status behind it (since 22); also a made-up 480 when the originate's timeout ran out."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Progress of an outbound call."""

    channel_id: str
    """The channel being dialled (`peer`)."""
    dialstatus: str
    """RINGING, PROGRESS, ANSWER, BUSY, NOANSWER, CONGESTION, ...; empty at its start."""


@dataclass(frozen=True, slots=True)
class ChannelDtmfReceived:
    """The far end pressed a key and let it go."""

    channel_id: str
    digit: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ChannelLeftBridge:
    """A channel was taken out of a bridge. It is all we hear of a bridge's deletion."""

    channel_id: str
    bridge_id: str


@dataclass(frozen=True, slots=True)
class ApplicationReplaced:
    """Another connection registered our application: this one gets no more events."""

    application: str


@dataclass(frozen=True, slots=True)
class ChannelVanished:
    """A channel we knew is not there after a reconnect: its end was missed. Made here, not by Asterisk."""

    channel_id: str


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """Any other kind of event."""

    kind: str
    channel_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelHold:
    """The far end put the call on hold, or took it back (ARI: ChannelHold, ChannelUnhold)."""

    channel_id: str
    held: bool


ChannelEvent = (
    StasisStart
    | StasisEnd
    | ChannelStateChange
    | ChannelHangupRequest
    | ChannelDestroyed
    | Dial
    | ChannelDtmfReceived
    | ChannelLeftBridge
    | ChannelVanished
    | ChannelHold
)
"""The events that belong to one channel: each has `channel_id`."""

Event = ChannelEvent | ApplicationReplaced | UnknownEvent


# --- parsing -----------------------------------------------------------------------------------------


def _field(holder: Json, name: str, kind: type, path: str = "") -> Any:
    value = holder.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{path}{name} must be {_WORDS[kind]}, not {type(value).__name__}")
    return value


_WORDS: Mapping[type, str] = {str: "a string", int: "a number", dict: "an object", list: "a list"}


def _text(holder: Json, name: str) -> str:
    """An optional text: empty when it is not there or something else."""
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _number(holder: Json, name: str) -> int | None:
    value = holder.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _part(holder: Json, name: str) -> Json:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _channel_id(event: Json, name: str = "channel") -> str:
    channel_id: str = _field(_field(event, name, dict), "id", str, f"{name}.")
    return channel_id


def parse_channel(value: Any) -> Channel:
    """One channel of a reply or an event.

    Raises:
        ValueError: it is not an object, or has no id, name or state.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a channel must be an object, not {type(value).__name__}")
    caller, dialplan = _part(value, "caller"), _part(value, "dialplan")
    return Channel(
        id=_field(value, "id", str, "channel."),
        name=_field(value, "name", str, "channel."),
        state=_field(value, "state", str, "channel."),
        caller_name=_text(caller, "name"),
        caller_number=_text(caller, "number"),
        exten=_text(dialplan, "exten"),
        app_name=_text(dialplan, "app_name"),
        app_data=_text(dialplan, "app_data"),
        protocol_id=_text(value, "protocol_id"),
    )


def parse_bridge(value: Any) -> Bridge:
    """One bridge of a reply.

    Raises:
        ValueError: it is not an object, or has no id or list of channels.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a bridge must be an object, not {type(value).__name__}")
    channels = _field(value, "channels", list, "bridge.")
    return Bridge(
        id=_field(value, "id", str, "bridge."),
        name=_text(value, "name"),
        channel_ids=tuple(item for item in channels if isinstance(item, str)),
    )


def _stasis_start(event: Json) -> StasisStart:
    args = event.get("args", [])
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        raise ValueError(f"args must be a list of strings, not {type(args).__name__}")
    return StasisStart(parse_channel(_field(event, "channel", dict)), tuple(args))


def _state_change(event: Json) -> ChannelStateChange:
    channel = parse_channel(_field(event, "channel", dict))
    return ChannelStateChange(channel.id, channel.state)


def _destroyed(event: Json) -> ChannelDestroyed:
    return ChannelDestroyed(
        _channel_id(event), _number(event, "cause"), _text(event, "cause_txt"), _number(event, "tech_cause")
    )


def _hangup_request(event: Json) -> ChannelHangupRequest:
    return ChannelHangupRequest(_channel_id(event), event.get("soft") is True, _number(event, "cause"))


def _dtmf(event: Json) -> ChannelDtmfReceived:
    return ChannelDtmfReceived(
        _channel_id(event), _field(event, "digit", str), _field(event, "duration_ms", int)
    )


_PARSERS: Mapping[str, Callable[[Json], Event]] = {
    "StasisStart": _stasis_start,
    "StasisEnd": lambda event: StasisEnd(_channel_id(event)),
    "ChannelStateChange": _state_change,
    "ChannelHangupRequest": _hangup_request,
    "ChannelDestroyed": _destroyed,
    "Dial": lambda event: Dial(_channel_id(event, "peer"), _field(event, "dialstatus", str)),
    "ChannelDtmfReceived": _dtmf,
    "ChannelLeftBridge": lambda event: ChannelLeftBridge(
        _channel_id(event), _field(_field(event, "bridge", dict), "id", str, "bridge.")
    ),
    "ChannelHold": lambda event: ChannelHold(_channel_id(event), True),
    "ChannelUnhold": lambda event: ChannelHold(_channel_id(event), False),
    "ApplicationReplaced": lambda event: ApplicationReplaced(_text(event, "application")),
}


def parse_event(text: str | bytes) -> Event:
    """One message of the event websocket.

    Raises:
        ValueError: not JSON, not an event, or an event of a kind we use without a field we need.
    """
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(event, dict):
        raise ValueError(f"an event must be an object, not {type(event).__name__}")
    kind: str = _field(event, "type", str)
    parser = _PARSERS.get(kind)
    if parser is None:
        return UnknownEvent(kind, _text(_part(event, "channel"), "id") or None)
    try:
        return parser(event)
    except ValueError as fault:
        raise ValueError(f"{kind}: {fault}") from None

"""Events: what is read from Asterisk's JSON, and that nothing but ValueError comes out of garbage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.ari.events import (
    ApplicationReplaced,
    Bridge,
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    ChannelLeftBridge,
    ChannelStateChange,
    Dial,
    Event,
    StasisEnd,
    StasisStart,
    UnknownEvent,
    parse_bridge,
    parse_channel,
    parse_event,
)

# As sent by Asterisk 22.10.1.
CHANNEL: dict[str, Any] = {
    "id": "1700000000.7",
    "name": "PJSIP/demo-caller-00000000",
    "state": "Ring",
    "protocol_id": "3b6dea9d-2d78",
    "caller": {"name": "Bob", "number": "+15551234567"},
    "connected": {"name": "", "number": ""},
    "accountcode": "",
    "dialplan": {
        "context": "bot",
        "exten": "100",
        "priority": 1,
        "app_name": "Stasis",
        "app_data": "ari_app,inbound,100",
    },
    "creationtime": "2026-11-22T23:53:33.281+0000",
    "language": "en",
}
BRIDGE = {"id": "b1", "technology": "simple_bridge", "bridge_type": "mixing", "name": "", "channels": ["m1"]}
PARSED = Channel(
    id="1700000000.7",
    name="PJSIP/demo-caller-00000000",
    state="Ring",
    caller_name="Bob",
    caller_number="+15551234567",
    exten="100",
    app_name="Stasis",
    app_data="ari_app,inbound,100",
    protocol_id="3b6dea9d-2d78",
)
EVENTS: list[tuple[dict[str, Any], Event]] = [
    (
        {"type": "StasisStart", "args": ["inbound", "100"], "channel": CHANNEL},
        StasisStart(PARSED, ("inbound", "100")),
    ),
    ({"type": "StasisEnd", "channel": CHANNEL}, StasisEnd("1700000000.7")),
    ({"type": "ChannelStateChange", "channel": CHANNEL}, ChannelStateChange("1700000000.7", "Ring")),
    (
        {"type": "ChannelHangupRequest", "cause": 32, "soft": True, "channel": CHANNEL},
        ChannelHangupRequest("1700000000.7", soft=True, cause=32),
    ),
    (
        {"type": "ChannelHangupRequest", "channel": CHANNEL},
        ChannelHangupRequest("1700000000.7", soft=False),
    ),
    (
        {
            "type": "ChannelDestroyed",
            "cause": 19,
            "cause_txt": "User alerting, no answer",
            "tech_cause": 480,
            "channel": CHANNEL,
        },
        ChannelDestroyed("1700000000.7", 19, "User alerting, no answer", 480),
    ),
    (
        {"type": "ChannelDestroyed", "cause": 16, "cause_txt": "Normal Clearing", "channel": CHANNEL},
        ChannelDestroyed("1700000000.7", 16, "Normal Clearing"),
    ),
    (
        {"type": "Dial", "dialstatus": "RINGING", "forward": "", "peer": CHANNEL},
        Dial("1700000000.7", "RINGING"),
    ),
    (
        {"type": "ChannelDtmfReceived", "digit": "5", "duration_ms": 120, "channel": CHANNEL},
        ChannelDtmfReceived("1700000000.7", "5", 120),
    ),
    (
        {"type": "ChannelLeftBridge", "bridge": BRIDGE, "channel": CHANNEL},
        ChannelLeftBridge("1700000000.7", "b1"),
    ),
    ({"type": "ApplicationReplaced", "application": "ari_app"}, ApplicationReplaced("ari_app")),
    (
        {"type": "ChannelTalkingStarted", "channel": CHANNEL},
        UnknownEvent("ChannelTalkingStarted", "1700000000.7"),
    ),
    ({"type": "PeerStatusChange"}, UnknownEvent("PeerStatusChange")),
]


@pytest.mark.parametrize(("sent", "event"), EVENTS, ids=lambda v: v["type"] if isinstance(v, dict) else "")
def test_events(sent: dict[str, Any], event: Event) -> None:
    assert parse_event(json.dumps({"timestamp": "", "asterisk_id": "", **sent})) == event


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "an event must be an object, not list"),
        ("{}", "type must be a string, not NoneType"),
        ('{"type": 7}', "type must be a string, not int"),
        ('{"type": "StasisStart"}', "StasisStart: channel must be an object, not NoneType"),
        (
            '{"type": "StasisStart", "channel": {"id": 7}}',
            "StasisStart: channel.id must be a string, not int",
        ),
        (
            '{"type": "StasisStart", "channel": {}, "args": [1]}',
            "StasisStart: args must be a list of strings, not list",
        ),
        ('{"type": "StasisEnd", "channel": {}}', "StasisEnd: channel.id must be a string, not NoneType"),
        ('{"type": "Dial", "dialstatus": "BUSY"}', "Dial: peer must be an object, not NoneType"),
        (
            '{"type": "ChannelDtmfReceived", "channel": {"id": "1"}, "digit": "1", "duration_ms": true}',
            "ChannelDtmfReceived: duration_ms must be a number, not bool",
        ),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_faults_are_named(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_event(text)
    assert str(raised.value).startswith(fault)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.text() | st.binary())
def test_garbage_is_a_value_error(message: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_event(message)


@given(st.sampled_from(EVENTS), st.data())
def test_a_damaged_event_is_parsed_or_a_value_error(
    known: tuple[dict[str, Any], Event], data: st.DataObject
) -> None:
    damaged = dict(known[0])
    damaged[data.draw(st.sampled_from(sorted(damaged)))] = data.draw(json_values)
    try:
        parse_event(json.dumps(damaged))
    except ValueError as fault:
        assert str(fault)


def test_replies() -> None:
    assert parse_channel(CHANNEL) == PARSED
    assert parse_bridge(BRIDGE) == Bridge("b1", "", ("m1",))
    with pytest.raises(ValueError, match=r"bridge.channels must be a list, not NoneType"):
        parse_bridge({"id": "b1"})
    for parse in (parse_channel, parse_bridge):
        with pytest.raises(ValueError, match="must be an object, not str"):
            parse("b1")


def test_in_stasis() -> None:
    assert PARSED.in_stasis("ari_app")
    assert not PARSED.in_stasis("ari")
    assert not Channel("1", "PJSIP/x", "Up", app_name="Playback", app_data="ari_app").in_stasis("ari_app")

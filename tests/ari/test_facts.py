"""What ARI events mean to a call."""

from __future__ import annotations

import pytest

from ari_app.ari import events as ev
from ari_app.ari.facts import (
    CalleeAnswered,
    CallerArrived,
    DialEnded,
    Fact,
    FarGone,
    FarHungUp,
    FarLeft,
    HandBackWanted,
    MediaEntered,
    MediaGone,
    MediaUnbridged,
    Ringing,
    fact_of,
)


def channel(channel_id: str) -> ev.Channel:
    return ev.Channel(channel_id, "PJSIP/x", "Up")


BOTH: list[tuple[ev.Event, Fact | None]] = [
    (ev.StasisEnd("far"), FarLeft()),
    (ev.ChannelHangupRequest("far", soft=False), FarHungUp()),
    (ev.ChannelHangupRequest("far", soft=True, cause=32), None),
    (ev.ChannelDestroyed("far", 17, "User busy", 486), FarGone(17, "User busy", 486)),
    (ev.ChannelDestroyed("far", None), FarGone(0)),
    (ev.ChannelVanished("far"), FarGone()),
    (ev.ChannelLeftBridge("far", "bridge"), None),
    (ev.ChannelDtmfReceived("far", "1", 100), None),
    (ev.StasisStart(channel("media")), MediaEntered()),
    (ev.StasisEnd("media"), MediaGone()),
    (ev.ChannelDestroyed("media", 16), MediaGone()),
    (ev.ChannelVanished("media"), MediaGone()),
    (ev.ChannelLeftBridge("media", "bridge"), MediaUnbridged()),
    (ev.ChannelStateChange("media", "Up"), None),
    (ev.Dial("media", "ANSWER"), None),
    (ev.StasisStart(channel("other")), None),
    (ev.ChannelDestroyed("other", 16), None),
    (ev.UnknownEvent("ChannelTalkingStarted", "far"), None),
    (ev.ApplicationReplaced("app"), None),
]
KEYS: list[tuple[str, str, bool, Fact | None]] = [
    ("0", "0#", False, HandBackWanted("handover", "the caller pressed 0")),
    ("#", "0#", False, HandBackWanted("handover", "the caller pressed #")),
    ("1", "0#", False, None),
    ("0", "", False, None),
    ("", "0#", False, None),
    ("0#", "0#", False, None),
    ("0", "0#", True, None),
]
OUTBOUND: list[tuple[ev.Event, Fact | None]] = [
    (ev.StasisStart(channel("far")), CalleeAnswered()),
    (ev.ChannelStateChange("far", "Ringing"), Ringing()),
    (ev.ChannelStateChange("far", "Up"), None),
    (ev.Dial("far", ""), None),
    (ev.Dial("far", "RINGING"), Ringing()),
    (ev.Dial("far", "PROGRESS"), Ringing()),
    (ev.Dial("far", "ANSWER"), None),
    (ev.Dial("far", "BUSY"), DialEnded("BUSY")),
]
INBOUND: list[tuple[ev.Event, Fact | None]] = [
    (ev.StasisStart(channel("far")), CallerArrived()),
    (ev.ChannelStateChange("far", "Ringing"), None),
    (ev.ChannelStateChange("far", "Up"), None),
    (ev.Dial("far", "BUSY"), None),
]


@pytest.mark.parametrize(("event", "fact"), BOTH + OUTBOUND, ids=repr)
def test_outbound(event: ev.Event, fact: Fact | None) -> None:
    assert fact_of(event, far_id="far", media_id="media", outbound=True) == fact


@pytest.mark.parametrize(("event", "fact"), BOTH + INBOUND, ids=repr)
def test_inbound(event: ev.Event, fact: Fact | None) -> None:
    assert fact_of(event, far_id="far", media_id="media", outbound=False) == fact


@pytest.mark.parametrize(("key", "wanted", "outbound", "fact"), KEYS)
def test_a_key_of_the_caller_leads_out_of_the_bot(
    key: str, wanted: str, outbound: bool, fact: Fact | None
) -> None:
    event = ev.ChannelDtmfReceived("far", key, 100)
    assert fact_of(event, far_id="far", media_id="media", outbound=outbound, handover_keys=wanted) == fact
    event = ev.ChannelDtmfReceived("media", key, 100)
    assert fact_of(event, far_id="far", media_id="media", outbound=outbound, handover_keys=wanted) is None

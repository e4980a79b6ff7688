"""What lists of channels and bridges say after a connect."""

from __future__ import annotations

from ari_app.ari.events import Bridge, Channel, ChannelStateChange, ChannelVanished, StasisStart
from ari_app.ari.ids import Kind, object_id
from ari_app.ari.leftovers import missed, orphans, stranded

OURS, DEAD, ALIVE = "0" * 8, "d" * 8, "a" * 8
CALL, OLD = "1" * 12, "2" * 12


def channel(channel_id: str, app: str = "bot", state: str = "Up") -> Channel:
    return Channel(channel_id, "PJSIP/x", state, app_name="Stasis" if app else "", app_data=f"{app},inbound")


def test_missed() -> None:
    answered, ringing = channel("answered"), channel("ringing", app="", state="Ringing")
    assert missed(["gone", "answered", "ringing"], [answered, ringing, channel("other")], "bot") == [
        ChannelVanished("gone"),
        StasisStart(answered),
        ChannelStateChange("ringing", "Ringing"),
    ]


def test_orphans_are_ours_or_of_the_dead_only() -> None:
    def ids(kind: Kind) -> list[str]:
        places = [(OURS, CALL), (OURS, OLD), (DEAD, CALL), (ALIVE, OLD)]
        return [object_id(tag, call, kind) for tag, call in places]

    foreign = ["1700000000.1", "ari_app", object_id(OURS, OLD, Kind.CALLEE) + ";2"]
    channels = [channel(i) for i in ids(Kind.MEDIA) + foreign]
    bridges = [Bridge(i, "", ()) for i in ids(Kind.BRIDGE) + foreign]
    assert orphans(channels, bridges, tag=OURS, living_calls={CALL}, dead_tags={DEAD}) == (
        [object_id(OURS, OLD, Kind.MEDIA), object_id(DEAD, CALL, Kind.MEDIA)],
        [object_id(OURS, OLD, Kind.BRIDGE), object_id(DEAD, CALL, Kind.BRIDGE)],
    )


def test_stranded_callers() -> None:
    before = [
        channel("known"),
        channel("stranded"),
        channel("elsewhere", app="bot2"),
        channel("dialplan", app=""),
        channel(object_id(OURS, OLD, Kind.CALLEE)),
    ]
    assert stranded(before, "bot", {"known"}) == ["stranded"]

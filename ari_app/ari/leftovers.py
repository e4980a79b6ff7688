"""What Asterisk's channels and bridges say after a connect: missed ends, orphans, stranded callers. Core."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ari_app.ari.events import Bridge, Channel, ChannelEvent, ChannelStateChange, ChannelVanished, StasisStart
from ari_app.ari.ids import parse_object_id


def missed(known: Iterable[str], channels: Iterable[Channel], app: str) -> list[ChannelEvent]:
    """Events that tell living calls what they may have missed; some repeat what was not missed.

    Args:
        known: ids of the channels that calls knew of before `channels` was asked for.
        channels: all channels that exist.
    """
    by_id = {channel.id: channel for channel in channels}
    events: list[ChannelEvent] = []
    for channel_id in known:
        channel = by_id.get(channel_id)
        if channel is None:
            events.append(ChannelVanished(channel_id))
        elif channel.in_stasis(app):
            events.append(StasisStart(channel))
        else:
            events.append(ChannelStateChange(channel_id, channel.state))
    return events


def orphans(
    channels: Iterable[Channel],
    bridges: Iterable[Bridge],
    *,
    tag: str,
    living_calls: Collection[str],
    dead_tags: Collection[str],
) -> tuple[list[str], list[str]]:
    """Ids of channels and bridges that are ours or a dead process's and belong to no living call.

    Never an id that is not of our form, nor one of a process that may be alive, here or on another host.
    """

    def is_orphan(text: str) -> bool:
        parts = parse_object_id(text)
        if parts is None:
            return False
        return parts.tag in dead_tags or (parts.tag == tag and parts.call_id not in living_calls)

    return (
        [channel.id for channel in channels if is_orphan(channel.id)],
        [bridge.id for bridge in bridges if is_orphan(bridge.id)],
    )


def stranded(before: Iterable[Channel], app: str, known: Collection[str]) -> list[str]:
    """Ids of callers who are in our application while no process knows of them.

    Args:
        before: the channels from before the application was registered: whoever was in it then entered it
            under an earlier registration, and Asterisk never tells of them again.
    """
    return [
        channel.id
        for channel in before
        if channel.in_stasis(app) and channel.id not in known and parse_object_id(channel.id) is None
    ]

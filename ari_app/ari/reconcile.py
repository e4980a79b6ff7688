"""Tells calls after a connect what they missed, and takes down what dead calls and processes left. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from ari_app.ari.client import AriClient
from ari_app.ari.events import Channel, ChannelHold
from ari_app.ari.instances import Instance
from ari_app.ari.leftovers import missed, orphans, stranded
from ari_app.errors import AriError, AriUnreachable

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 5.0
HOLDABLE = "PJSIP/"
HELD_BY_THE_FAR_END = "CHANNEL(rtp,hold)"
"""1 while the far end holds. `CHANNEL(onhold)` is about the other direction: whether we hold them."""


class Reconciler:
    """To be given to `AriClient` as `on_connected`.

    Args:
        instance: this process, whose tag its object ids carry.
        known_channels: ids of the channels that living calls know to exist, callers' included.
        living_calls: ids of the calls that may still create objects.
        count_connection: is told of each connection.
        count_swept: is told how many objects were taken down.
    """

    def __init__(
        self,
        instance: Instance,
        known_channels: Callable[[], Collection[str]],
        living_calls: Callable[[], Collection[str]],
        *,
        count_connection: Callable[[], None] = lambda: None,
        count_swept: Callable[[int], None] = lambda swept: None,
    ) -> None:
        self._instance = instance
        self._known_channels = known_channels
        self._living_calls = living_calls
        self._count_connection = count_connection
        self._count_swept = count_swept
        self._unknown: set[str] = set()
        """Callers in our application of whom the last sweep found no call."""

    async def __call__(self, client: AriClient, before: Sequence[Channel]) -> None:
        """Reconcile and sweep; `before` are the channels from before the application was registered.

        Raises:
            AriError: Asterisk could not be asked; the connection counts as failed.
        """
        known = set(self._known_channels())  # before asking: what is created meanwhile has not vanished
        channels = await client.rest.list_channels()
        for event in missed(sorted(known), channels, client.app):
            client.dispatch(event)
        self._count_connection()
        await self.sweep(client, channels)
        await self._free(client, stranded(before, client.app, known))
        for channel in channels:
            if channel.id in known and channel.in_stasis(client.app) and channel.name.startswith(HOLDABLE):
                await _try(self._tell_hold(client, channel.id))

    async def _tell_hold(self, client: AriClient, channel_id: str) -> None:
        """To a living call, as it may have been held or taken back meanwhile."""
        held = await client.rest.get_variable(channel_id, HELD_BY_THE_FAR_END)
        client.dispatch(ChannelHold(channel_id, held == "1"))

    async def _free(self, client: AriClient, channel_ids: Sequence[str]) -> None:
        for channel_id in channel_ids:
            log.warning("caller %s was left alone in the application: back to the dialplan", channel_id)
            await _try(client.rest.hand_back(channel_id, "failed"))

    async def sweep(self, client: AriClient, channels: Sequence[Channel] | None = None) -> None:
        """Take down what belongs to no living call: of dead processes, and of calls whose last requests failed.

        Raises:
            AriError: Asterisk could not be asked.
        """
        if channels is None:
            channels = await client.rest.list_channels()
        bridges = await client.rest.list_bridges()
        with self._instance.dead() as dead_tags:
            # After asking: a call that began since has nothing in the lists.
            channel_ids, bridge_ids = orphans(
                channels,
                bridges,
                tag=self._instance.tag,
                living_calls=set(self._living_calls()),
                dead_tags=dead_tags,
            )
            for channel_id in channel_ids:
                await _try(client.rest.hangup(channel_id))
            for bridge_id in bridge_ids:
                await _try(client.rest.delete_bridge(bridge_id))
        if channel_ids or bridge_ids:
            self._count_swept(len(channel_ids) + len(bridge_ids))
            log.info("swept %d channels and %d bridges of dead calls", len(channel_ids), len(bridge_ids))

    async def rescue(self, client: AriClient, channels: Sequence[Channel]) -> None:
        """Hand back callers who have no call now and had none the last time: nobody will ever take or free them.

        Raises:
            AriUnreachable: Asterisk could not be asked.
        """
        unknown = set(stranded(channels, client.app, set(self._known_channels())))
        await self._free(client, sorted(unknown & self._unknown))
        self._unknown = unknown

    async def sweep_for_ever(self, client: AriClient) -> None:
        """Whatever went wrong, nothing of a dead call stays for longer than SWEEP_EVERY_S and a little."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            if client.registered.is_set():
                try:
                    channels = await client.rest.list_channels()
                    await self.sweep(client, channels)
                    await self.rescue(client, channels)
                except AriError as error:  # the connection's own task says what is wrong with it
                    log.debug("not swept: %s", error)


async def _try(request: Awaitable[None]) -> None:
    """One object that resists must not keep the application from being registered."""
    try:
        await request
    except AriUnreachable:
        raise
    except AriError as error:
        log.warning("%s", error)

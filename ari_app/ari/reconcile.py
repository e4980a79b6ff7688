"""Tells calls after a connect what they missed, and takes down what dead calls and processes left. Shell."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial

from ari_app.ari.client import AriClient
from ari_app.ari.events import Channel, ChannelHold
from ari_app.ari.ids import parse_object_id
from ari_app.ari.instances import Instance
from ari_app.ari.leftovers import missed, orphans, stranded
from ari_app.errors import AriError, AriUnreachable

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 5.0
ANSWER_S = 2.0
"""For all requests about single channels and bridges together: each takes Asterisk some milliseconds, or for ever.
Less than a request's own time-out, which says that Asterisk is away."""
AT_ONCE = 8
"""Such requests: Asterisk's HTTP server has 100 connections, for all its clients."""
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
        await _each(
            {
                channel.id: partial(self._tell_hold, client, channel.id)
                for channel in channels
                if channel.id in known and channel.in_stasis(client.app) and channel.name.startswith(HOLDABLE)
            }
        )

    async def _tell_hold(self, client: AriClient, channel_id: str) -> None:
        """To a living call, as it may have been held or taken back meanwhile."""
        held = await client.rest.get_variable(channel_id, HELD_BY_THE_FAR_END)
        client.dispatch(ChannelHold(channel_id, held == "1"))

    async def _free(self, client: AriClient, channel_ids: Sequence[str]) -> None:
        for channel_id in channel_ids:
            log.warning("caller %s was left alone in the application: back to the dialplan", channel_id)
        await _each({one: partial(client.rest.hand_back, one, "failed") for one in channel_ids})

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
            swept = await _each(
                {one: partial(client.rest.hangup, one) for one in channel_ids}
                | {one: partial(client.rest.delete_bridge, one) for one in bridge_ids}
            )
            resisted = {*channel_ids, *bridge_ids} - swept
            dead_tags -= {parts.tag for one in resisted if (parts := parse_object_id(one))}
        if swept:
            self._count_swept(len(swept))
            log.info("swept %d channels and bridges of dead calls", len(swept))

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


async def _each(requests: Mapping[str, Callable[[], Awaitable[None]]]) -> set[str]:
    """Make the requests, by the id of what each is about; returns the ids of those that were carried out.

    One that is refused, or not answered in time, keeps neither the others from being made nor the application from
    being registered. In no order, so that it does not come first each time.

    Raises:
        AriUnreachable: Asterisk could not be asked.
    """
    waiting = random.sample(list(requests), len(requests))
    answered: dict[str, bool] = {}

    async def work() -> None:
        while waiting:
            one = waiting.pop()
            try:
                await requests[one]()
            except AriUnreachable:
                raise
            except AriError as error:
                log.warning("%s", error)
                answered[one] = False
            else:
                answered[one] = True

    workers = (work() for _ in range(min(AT_ONCE, len(requests))))
    try:
        async with asyncio.timeout(ANSWER_S):
            faults = await asyncio.gather(*workers, return_exceptions=True)
    except TimeoutError:
        silent = ", ".join(sorted(set(requests) - set(answered)))
        log.warning("no answer of Asterisk within %g s about %.999s: passed over", ANSWER_S, silent)
    else:
        for fault in filter(None, faults):
            raise fault
    return {one for one, carried_out in answered.items() if carried_out}

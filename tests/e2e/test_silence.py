"""How long a call may be silent, and how long it may last, against a real Asterisk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ari_app.demo.asterisk_prefix import Prefix
from tests.faults.lane import Lane
from tests.faults.phone import Phone

MODES = ("pipeline", "realtime")


async def held_out(
    prefix: Prefix, mode: str, settings: Mapping[str, str]
) -> tuple[Phone, list[dict[str, Any]]]:
    """A caller who says nothing until they are hung up on; nothing of their call is left."""
    with tempfile.TemporaryDirectory(prefix="ari_app-rules-") as folder:
        async with (
            Lane(0, prefix, Path(folder)) as lane,
            lane.session(mode, settings) as session,
            lane.phone() as phone,
        ):
            idle = await session.idle()
            assert await phone.dial(lane.asterisk.bot_extension) == 200
            async with asyncio.timeout(40):
                await phone.ended.wait()
            assert await session.leftovers(idle) == ""
            return phone, session.events(phone.call_id)


def utterances(phone: Phone) -> list[float]:
    """When each began that was heard."""
    sounds = phone.hearing.sounds
    return [at for before, at in zip([-1.0, *sounds], sounds, strict=False) if at - before > 0.5]


@pytest.mark.parametrize("mode", MODES)
async def test_who_says_nothing_is_asked_whether_they_are_there_and_then_let_go(
    asterisk_prefix: Prefix, mode: str
) -> None:
    phone, events = await held_out(asterisk_prefix, mode, {"IDLE_SECONDS": "5"})
    greeting, question, goodbye = utterances(phone)
    assert question - greeting > 5 and goodbye - question > 2
    assert events[-1]["event"] == "ended" and "nobody spoke" in events[-1]["reason"]


@pytest.mark.parametrize("mode", MODES)
async def test_the_longest_call_ends_with_a_farewell(asterisk_prefix: Prefix, mode: str) -> None:
    phone, events = await held_out(asterisk_prefix, mode, {"MAX_CALL_SECONDS": "12"})
    greeting, farewell = utterances(phone)
    assert farewell - greeting > 4
    assert "MAX_CALL_SECONDS" in events[-1]["reason"]
    assert "limit of" not in events[-1]["reason"], "the hard end cut the farewell off"

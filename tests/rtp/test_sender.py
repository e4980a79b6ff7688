"""How the sender spreads its legs over time."""

import asyncio
from collections import Counter

from ari_app.rtp.sender import PHASES, RtpSender


class Leg:
    """Writes down when it is asked to send."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.told = 0

    def send_due(self, count: int, skipped: int, now: float) -> None:
        self.times.append(now)

    def tell(self) -> None:
        self.told += 1


async def test_many_legs_are_no_burst() -> None:
    legs = [Leg() for _ in range(2 * PHASES)]
    async with RtpSender() as sender:
        for leg in legs:
            sender.add(leg)
        await asyncio.sleep(0.2)
    together = Counter(time for leg in legs for time in leg.times)
    assert set(together.values()) == {2}, "two legs at each moment"
    assert all(leg.told for leg in legs)


async def test_a_leg_takes_the_emptiest_place() -> None:
    first, *others = legs = [Leg() for _ in range(PHASES + 1)]
    async with RtpSender() as sender:
        for leg in legs[:-1]:
            sender.add(leg)
        sender.remove(first)
        sender.add(legs[-1])
        await asyncio.sleep(0.1)
        sender.remove(first)
    moments = Counter(leg.times[-1] for leg in others)
    assert set(moments.values()) == {1}

"""What a call is charged for: counted, cut off, refused, and known only when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from ari_app.dialog.ports import CallerSaid, EngineUsed, Message, Speculated, Transcript
from ari_app.dialog.usage import Bill, Request
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnreachable
from tests.fakes.brain_ports import Forever, ScriptedChat, ScriptedStt
from tests.fakes.pipeline_call import Call, on_the_line

PRICES = {"text_in": 1.0, "text_out": 2.0}


class Payer:
    def __init__(self) -> None:
        self.bill = Bill()
        self.told: list[EngineUsed] = []
        self.bill.charge(3, self.told.append)


async def test_a_request_is_entered_once_with_its_turn() -> None:
    payer = Payer()
    with Request("chat", "m", PRICES) as request:
        request.took(text_in=500_000)
        request.took(text_in=1_000_000, text_out=1_000_000)
    request.end()
    (used,) = payer.told
    assert (used.turn, used.stage, used.model) == (3, "chat", "m")
    assert used.amounts == {"text_in": 1_000_000, "text_out": 1_000_000}
    assert used.cost_usd == 3.0 and used.call_cost_usd == 3.0 and not used.call_cost_is_partial
    assert str(payer.bill) == "1 requests to engines, 3.0000 USD"


async def test_what_was_not_counted_makes_the_sum_a_lower_bound_for_good() -> None:
    payer = Payer()
    with Request("chat", "m", PRICES):
        pass
    with Request("chat", "m", PRICES) as request:
        request.took(text_in=1_000_000)
    first, second = payer.told
    assert first.amounts == {"uncounted": 1} and first.cost_usd is None and first.call_cost_usd is None
    assert second.cost_usd == 1.0 and second.call_cost_usd == 1.0
    assert first.call_cost_is_partial and second.call_cost_is_partial
    assert str(payer.bill) == "2 requests to engines, at least 1.0000 USD"


@pytest.mark.parametrize(
    ("error", "answered", "entered"),
    [
        (EngineRejected("chat", "no"), False, False),
        (EngineUnreachable("chat", "nobody"), False, False),
        (EngineUnreachable("chat", "broken"), True, True),
        (EngineTimeout("chat", "late"), False, True),
        (EngineError("chat", "nonsense"), True, True),
    ],
)
async def test_what_was_refused_or_never_arrived_costs_nothing(
    error: EngineError, answered: bool, entered: bool
) -> None:
    payer = Payer()
    with pytest.raises(EngineError), Request("chat", "m", PRICES) as request:
        request.answered = answered
        raise error
    assert bool(payer.told) is entered and payer.bill.is_partial is entered


async def test_what_is_on_its_way_when_the_call_ends_is_entered_then_and_never_again() -> None:
    payer = Payer()
    request = Request("text-to-speech", "m", PRICES)
    assert payer.bill.close()
    assert [used.amounts for used in payer.told] == [{"uncounted": 1}]
    request.took(text_out=5)
    request.end()
    assert not payer.bill.close()
    Request("text-to-speech", "m", PRICES).end()
    assert len(payer.told) == 1


async def test_tasks_pay_for_their_own_call_and_nobody_for_what_no_call_asked() -> None:
    Request("chat", "m", PRICES).end()
    payers: list[Payer] = []

    async def inner(cost: int) -> None:
        await asyncio.sleep(0)
        with Request("chat", "m", PRICES) as request:
            request.took(text_in=cost)

    async def call(cost: int) -> None:
        payers.append(Payer())
        await asyncio.gather(asyncio.create_task(inner(cost)), asyncio.create_task(inner(cost)))

    await asyncio.gather(call(1), call(2))
    assert [[used.amounts["text_in"] for used in payer.told] for payer in payers] == [[1, 1], [2, 2]]


# --- a whole call ------------------------------------------------------------------------------------


class CountedStt(ScriptedStt):
    """Knows what it was sent, as the adapters do."""

    async def transcribe(self, pcm: bytes, rate_hz: int) -> Transcript:
        with Request("speech-to-text", "ear", {"minute": 60.0}) as request:
            request.took(audio_ms=1000)
            return await super().transcribe(pcm, rate_hz)


class CountedChat(ScriptedChat):
    """Knows what it took when its answer is complete."""

    async def reply(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        with Request("chat", "mind", PRICES) as request:
            async with aclosing(super().reply(messages)) as deltas:
                async for delta in deltas:
                    yield delta
            request.took(text_in=1_000_000, text_out=1_000_000)


async def test_a_call_pays_for_guesses_that_were_thrown_away_too() -> None:
    stt = CountedStt("I want.", "I want a bike.")
    call = Call(stt, CountedChat(["You ", Forever()], ["All right."]))
    async with on_the_line(call):
        await call.speak()
        await call.silence(600)
        await call.speak()
        await call.silence(1200)
        await call.until(lambda: len(call.all(EngineUsed)) == 4)
    assert [f.won for f in call.all(Speculated)] == [False, True]
    assert [f.text for f in call.all(CallerSaid)] == ["I want a bike."]
    used = call.all(EngineUsed)
    assert [(u.turn, u.model, u.cost_usd) for u in used] == [
        (1, "ear", 1.0),
        (1, "mind", None),  # its server never told
        (1, "ear", 1.0),
        (1, "mind", 3.0),
    ]
    assert used[-1].call_cost_usd == 5.0 and used[-1].call_cost_is_partial


async def test_a_call_that_ends_while_an_engine_works_pays_for_it() -> None:
    call = Call(CountedStt("Hello."), CountedChat([Forever()]))
    async with on_the_line(call):
        await call.say()
        await call.until(lambda: call.chat.open)
    assert [(u.model, u.amounts) for u in call.all(EngineUsed)] == [
        ("ear", {"audio_ms": 1000}),
        ("mind", {"uncounted": 1}),
    ]

"""What a chat model says, in pieces, when it says far too much."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from ari_app.dialog.ports import Message
from ari_app.dialog.thought import MAX_ANSWER_CHARS, thoughts
from ari_app.errors import EngineTimeout


class Model:
    """Says what it is given; then nothing more comes."""

    def __init__(self, *deltas: str) -> None:
        self._deltas = deltas
        self.closed = False

    async def reply(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        try:
            for delta in self._deltas:
                yield delta
            await asyncio.Event().wait()
        finally:
            self.closed = True

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize("size", [1, 1000, 3999, 10_000_000])
async def test_no_more_is_looked_at_than_is_spoken(size: int) -> None:
    text = ("Well. " * (10_000_000 // 6))[:10_000_000]
    deltas = [text[start : start + size] for start in range(0, min(len(text), 5000 * size), size)]
    model = Model(*deltas)
    said = [piece async for piece in thoughts(model, [], 1.0, lambda: None)]
    spoken = " ".join(said)
    assert MAX_ANSWER_CHARS - 10 <= len(spoken) <= MAX_ANSWER_CHARS
    assert text.startswith(spoken)
    assert model.closed


async def test_what_stops_before_its_end_is_a_timeout() -> None:
    with pytest.raises(EngineTimeout):
        async for _ in thoughts(Model("Well."), [], 0.05, lambda: None):
            pass

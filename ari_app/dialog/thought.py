"""What the chat model says, in speakable pieces. Shell, owned by a turn."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from ari_app.dialog.ports import ChatModel, Message
from ari_app.dialog.sentences import SentenceSplitter
from ari_app.dialog.streams import within

logger = logging.getLogger(__name__)

MAX_ANSWER_CHARS = 4000
"""About four minutes of speech; what a chat model says beyond is not asked for."""


async def thoughts(
    chat: ChatModel, messages: Sequence[Message], deadline_s: float, reached: Callable[[], None]
) -> AsyncGenerator[str, None]:
    """The answer to `messages`; `reached` is called with each delta.

    Raises:
        EngineError: before or between pieces; also when nothing comes within the deadline.
    """
    splitter = SentenceSplitter()
    chars = 0
    async with aclosing(within(chat.reply(messages), "chat", deadline_s)) as deltas:
        async for delta in deltas:
            reached()
            chars += len(delta)
            for piece in splitter.push(delta[: MAX_ANSWER_CHARS - chars + len(delta)]):
                yield piece
            if chars >= MAX_ANSWER_CHARS:
                logger.warning("an answer was cut at %d characters", MAX_ANSWER_CHARS)
                break
    for piece in splitter.finish():
        yield piece

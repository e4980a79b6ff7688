"""Chat by streamed `POST /chat/completions`, which every compatible server speaks. Shell."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from ari_app.dialog.ports import Message
from ari_app.openai_api.client import StageClient, StageSettings

logger = logging.getLogger(__name__)


class OpenAiChat:
    """Implements `ChatModel`."""

    def __init__(
        self,
        settings: StageSettings,
        *,
        max_tokens: int = 500,
        limit_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """`extra` are more body fields, such as `reasoning_effort`, for servers that know them."""
        self._client = StageClient("chat", settings)
        self._completions = (
            self._client.openai.chat.completions
        )  # loads the SDK's module before there are calls
        self._options: dict[str, Any] = {limit_field: max_tokens}
        self._extra = dict(extra or {})

    async def reply(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        """Stream the answer as text deltas; closing the iterator cancels the request.

        Raises:
            EngineError: before or between deltas.
        """
        body: list[Any] = [{"role": m.role, "content": m.content} for m in messages]
        with self._client.errors():
            stream = await self._completions.create(
                model=self._client.model,
                messages=body,
                stream=True,
                extra_body=self._extra or None,
                **self._options,
            )
            async with stream:
                async for chunk in stream:
                    if chunk.usage:
                        logger.debug(
                            "chat tokens: %s in, %s out",
                            chunk.usage.prompt_tokens,
                            chunk.usage.completion_tokens,
                        )
                    for choice in chunk.choices[:1]:
                        if choice.delta and choice.delta.content:
                            yield choice.delta.content

    async def warm(self) -> None:
        await self._client.warm()

    async def close(self) -> None:
        await self._client.close()

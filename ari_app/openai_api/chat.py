"""Chat by streamed `POST /chat/completions`, which every compatible server speaks. Shell."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

import openai

from ari_app.dialog.ports import Message
from ari_app.openai_api.client import StageClient, StageSettings, count_of


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
        self._count: Mapping[str, Any] = {"stream_options": {"include_usage": True}}
        self._takes_count = False
        """It answered to `_count`: what it refuses now is something else."""
        self._extra = dict(extra or {})

    async def reply(self, messages: Sequence[Message]) -> AsyncGenerator[str, None]:
        """Stream the answer as text deltas; closing the iterator cancels the request.

        Raises:
            EngineError: before or between deltas.
        """
        body: list[Any] = [{"role": m.role, "content": m.content} for m in messages]
        with self._client.request() as request, self._client.errors():
            stream = await self._begin(body)
            request.answered = True
            async with stream:
                async for chunk in stream:
                    if usage := getattr(chunk, "usage", None):
                        request.took(**_tokens(usage))
                    if words := _words(chunk):
                        yield words

    async def _begin(self, body: list[Any]) -> Any:
        """The stream of the answer; a server that refuses to count is not asked to again."""
        count = self._count
        try:
            stream = await self._create(body, count)
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if self._takes_count or not count:
                raise
            stream = await self._create(body, {})
            self._count = {}
        else:
            self._takes_count = bool(count)
        return stream

    async def _create(self, body: list[Any], count: Mapping[str, Any]) -> Any:
        return await self._completions.create(
            model=self._client.model,
            messages=body,
            stream=True,
            extra_body=self._extra or None,
            **self._options,
            **count,
        )

    async def warm(self) -> None:
        await self._client.warm()

    async def close(self) -> None:
        await self._client.close()


def _words(chunk: object) -> str:
    """The text of a chunk, "" where it holds none; the SDK hands on whatever JSON the server sent."""
    choices = getattr(chunk, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    content = getattr(getattr(first, "delta", None), "content", None)
    return content if isinstance(content, str) else ""


def _tokens(usage: object) -> dict[str, int]:
    cached = count_of(getattr(usage, "prompt_tokens_details", None), "cached_tokens")
    return {
        "text_in": max(count_of(usage, "prompt_tokens") - cached, 0),
        "text_in_cached": cached,
        "text_out": count_of(usage, "completion_tokens"),
    }

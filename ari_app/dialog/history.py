"""The conversation as the chat model is told it: bounded, and with what the caller heard. Core."""

from __future__ import annotations

from copy import copy

from ari_app.dialog.ports import Message

MAX_MESSAGES = 40
"""Twenty exchanges: a long call, and a prompt that stays quick."""
MAX_CHARS = 16_000
"""About 4000 tokens beside the system message, which fits small local models."""
CALL_BEGINS = "[The call begins.]"
"""Stands before the greeting, so that the conversation begins with a user message."""
INTERRUPTED = "—"
"""Ends an answer that the caller cut off."""


class History:
    """Messages of one call; user and assistant alternate, as strict chat templates demand."""

    def __init__(
        self, system_message: str, *, max_messages: int = MAX_MESSAGES, max_chars: int = MAX_CHARS
    ) -> None:
        self._system = Message("system", system_message) if system_message else None
        self._max_messages = max_messages
        self._max_chars = max_chars
        self._messages: list[Message] = []

    @property
    def unanswered(self) -> bool:
        """True when the last word is the caller's."""
        return bool(self._messages) and self._messages[-1].role == "user"

    @property
    def asked(self) -> bool:
        """True when the bot's last word was a question."""
        said = [message.content for message in self._messages if message.role == "assistant"]
        return bool(said) and said[-1].endswith("?")

    def add_user(self, text: str) -> None:
        """The caller said `text`; what follows an unanswered message continues it."""
        self._add(Message("user", text))

    def add_assistant(self, heard: str, *, interrupted: bool = False) -> None:
        """The caller heard `heard` of an answer; an unheard answer leaves no trace."""
        if heard:
            self._add(Message("assistant", f"{heard} {INTERRUPTED}" if interrupted else heard))

    def forget_answer(self) -> None:
        """The last answer is to be given anew."""
        if self._messages and self._messages[-1].role == "assistant":
            self._messages.pop()

    def messages(self, also: str = "") -> list[Message]:
        """What to send to the chat model; with `also`, as if the caller had said that too."""
        if also:
            then = copy(self)
            then._messages = list(self._messages)
            then.add_user(also)
            return then.messages()
        greeted = bool(self._messages) and self._messages[0].role == "assistant"
        return (
            ([self._system] if self._system else [])
            + ([Message("user", CALL_BEGINS)] if greeted else [])
            + self._messages
        )

    def _add(self, message: Message) -> None:
        if self._messages and self._messages[-1].role == message.role:
            message = Message(message.role, f"{self._messages.pop().content} {message.content}")
        # One message beyond the bound keeps its end: the latest words ask the question.
        self._messages.append(Message(message.role, message.content[-self._max_chars :]))
        self._trim()

    def _trim(self) -> None:
        chars = sum(len(m.content) for m in self._messages)
        trimmed = False
        while len(self._messages) > self._max_messages or chars > self._max_chars:
            chars -= len(self._messages.pop(0).content)
            trimmed = True
        # An answer without its question only confuses; a greeting at the start of the call is not one.
        if trimmed and len(self._messages) > 1 and self._messages[0].role == "assistant":
            self._messages.pop(0)


def heard_part(text: str, played_ms: float, total_ms: float) -> str:
    """The whole words of `text` that fit into `played_ms` when all of it lasts `total_ms`."""
    if total_ms <= 0 or played_ms <= 0:
        return ""
    if played_ms >= total_ms:
        return text
    end = int(len(text) * played_ms / total_ms)
    while end > 0 and not text[end].isspace():
        end -= 1
    return text[:end].rstrip()

"""The responses of a Realtime session: one of the conversation at a time, several out of band beside it. Core.

The offline backend is no language model. What it says is, in this order:
- the rest of the response's own instructions after "Say exactly:";
- the one text of the `input` of a response out of band whose own instructions contain "word for word";
- what `answerer.answer` finds for the conversation (or the `input`) in the instructions in force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ari_app.offline import answerer
from ari_app.offline.realtime_config import Event, Invalid
from ari_app.offline.realtime_items import Conversation, Item, as_messages, checked_item
from ari_app.offline.realtime_response import Response

MAX_RUNNING = 9
"""The default response and eight out of band."""
DELTA_WORDS = 8
"""Of a response in text."""
SAY = "Say exactly:"
READ = "word for word"


@dataclass(frozen=True, slots=True)
class Speak:
    """Work for the shell: speak `text` and hand the chunks to `say`, then call `finished`."""

    response_id: str
    text: str
    voice: str
    speed: float
    format: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody wants the rest of this response."""

    response_id: str


class Responses:
    """All responses that run; `ended` is called with each one at its end."""

    def __init__(
        self,
        conversation: Conversation,
        conversation_id: str,
        send: Callable[[Event], None],
        work: Callable[[Speak | Stop], None],
        new_id: Callable[[str], str],
        ended: Callable[[Response], None],
    ) -> None:
        self._conversation = conversation
        self._conversation_id = conversation_id
        self._send = send
        self._work = work
        self._new_id = new_id
        self._ended = ended
        self._running: dict[str, Response] = {}
        self._inputs: dict[str, list[Item]] = {}
        self.spoke = False
        """Audio was produced, so the voice can't be changed any more."""

    @property
    def default(self) -> Response | None:
        """The one that continues the conversation."""
        return next((response for response in self._running.values() if response.conversation_id), None)

    def create(self, settings: Event) -> Response:
        """Begin a response, as soon as all that was said is understood.

        Raises:
            Invalid: one is running already, or too many are, or its `input` is wrong.
        """
        of_conversation = settings["conversation"] == "auto"
        default = self.default
        if of_conversation and default:
            message = (
                f"Conversation already has an active response in progress: {default.id}. "
                "Wait until the response is finished before creating a new one."
            )
            raise Invalid("conversation_already_has_active_response", message)
        if len(self._running) >= MAX_RUNNING:
            raise Invalid("rate_limit_exceeded", f"{MAX_RUNNING} responses are running already.")
        context = self._context(settings)
        conversation_id = self._conversation_id if of_conversation else None
        response_id, item_id = self._new_id("resp"), self._new_id("item")
        response = Response(response_id, item_id, settings, conversation_id, self._send)
        self._running[response.id] = response
        if context is not None:
            self._inputs[response.id] = context
        self.advance()
        return response

    def advance(self) -> None:
        """Begin what waited for words of the caller that are understood now."""
        if not self._conversation.pending:
            for response in list(self._running.values()):
                if not response.begun:
                    self._begin(response)

    def say(self, response_id: str, words: str, audio: bytes) -> None:
        """One chunk of a response; nothing if it ended meanwhile."""
        response = self._running.get(response_id)
        if response is None:
            return
        self.spoke = self.spoke or bool(audio)
        if not response.say(words, audio):
            self._work(Stop(response_id))
            self._end(response, "incomplete", {"type": "incomplete", "reason": "max_output_tokens"})

    def finished(self, response_id: str) -> None:
        """All of it was said."""
        if response_id in self._running:
            self._end(self._running[response_id], "completed", None)

    def failed(self, response_id: str, message: str) -> None:
        """It can't be said."""
        if response_id in self._running:
            error = {"type": "server_error", "code": "server_error", "message": message}
            self._end(self._running[response_id], "failed", {"type": "failed", "error": error})

    def cancel(self, response: Response, reason: str) -> None:
        """End it in the middle; reason: turn_detected or client_cancelled."""
        self._work(Stop(response.id))
        self._end(response, "cancelled", {"type": "cancelled", "reason": reason})

    def wanted(self, response_id: object) -> Response:
        """The running response that `response.cancel` means; raises `Invalid` when there is none."""
        response = self.default if response_id is None else self._running.get(str(response_id))
        if response is None:
            raise Invalid("response_cancel_not_active", "Cancellation failed: no active response found")
        return response

    def _context(self, settings: Event) -> list[Item] | None:
        if "input" not in settings:
            return None
        items = []
        for i, given in enumerate(settings["input"]):
            path = f"response.input[{i}]"
            if given.get("type") == "item_reference":
                items.append(self._conversation.find(given.get("id")))
                continue
            wire = checked_item(given, path)
            if any(part["type"] == "input_audio" for part in wire.get("content", ())):
                message = "Audio belongs into the conversation: create an item and refer to it."
                raise Invalid("invalid_value", message, f"{path}.content")
            items.append(Item(wire | {"id": wire.get("id", "")}))
        return items

    def _begin(self, response: Response) -> None:
        settings = response.settings
        given = self._inputs.pop(response.id, None)
        context = list(self._conversation) if given is None else given
        previous = self._conversation.add(response.item) if response.conversation_id else None
        response.begin(context, settings["instructions"], previous)
        text = _text(settings, context)
        if response.spoken:
            output = settings["output"]
            voice = output["voice"] if isinstance(output["voice"], str) else output["voice"]["id"]
            self._work(Speak(response.id, text, voice, output["speed"], response.format))
            return
        words = text.split(" ")
        for start in range(0, len(words), DELTA_WORDS):
            self.say(response.id, " ".join(words[start : start + DELTA_WORDS]) + " ", b"")
        self.finished(response.id)

    def _end(self, response: Response, status: str, details: Event | None) -> None:
        del self._running[response.id]
        self._inputs.pop(response.id, None)
        response.finish(status, details, kept=self._conversation.holds(response.item))
        self._send({"type": "rate_limits.updated", "rate_limits": _RATE_LIMITS})
        self._ended(response)


_RATE_LIMITS = [
    {"name": name, "limit": limit, "remaining": limit, "reset_seconds": 0.0}
    for name, limit in (("requests", 1000), ("tokens", 1_000_000))
]
"""There are none."""


def _text(settings: Event, context: list[Item]) -> str:
    own = settings["own_instructions"]
    if SAY in own:
        return str(own.split(SAY, 1)[1].strip())
    messages = as_messages(context)
    if (
        settings["conversation"] == "none"
        and READ in own
        and "input" in settings
        and [role for role, _ in messages] == ["user"]
    ):
        return messages[0][1]
    return answerer.answer([("system", settings["instructions"]), *messages])

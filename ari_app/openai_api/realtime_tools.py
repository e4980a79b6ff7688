"""Function calls of the model. There are no functions yet, but a call without a result would wedge it. Core."""

from __future__ import annotations

from typing import Any

from ari_app.openai_api.realtime_protocol import Event, function_output, text_of

MAX_ROUNDS = 3
"""Responses in a row that only call functions; the next one has to speak."""
MAX_CALLS = 16
"""Of one response; those beyond get no result."""
UNKNOWN_TOOL = '{"error": "There is no such tool. Answer without it."}'


class ToolCalls:
    """The calls of the response that is being made."""

    def __init__(self) -> None:
        self.rounds = 0
        """Responses since the caller spoke that called functions."""
        self._call_ids: list[str] = []

    def push_item(self, item: dict[str, Any]) -> bool:
        """An item is complete; False when it is no function call."""
        if text_of(item, "type") != "function_call":
            return False
        if text_of(item, "status") != "incomplete" and len(self._call_ids) < MAX_CALLS:
            self._call_ids.append(text_of(item, "call_id"))
        return True

    def answers(self) -> list[Event]:
        """The results to post once the response is done, also when it was interrupted."""
        events = [function_output(call_id, UNKNOWN_TOOL) for call_id in self._call_ids]
        self._call_ids.clear()
        self.rounds += bool(events)
        return events

    def response(self) -> dict[str, Any] | None:
        """The response to ask for after the results."""
        return {"tool_choice": "none"} if self.rounds >= MAX_ROUNDS else None

"""The fake Realtime server's session object and conversation: what is in force, and which items there are. Core."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from tests.fakes.realtime_rules import PCM_RATE_HZ, Violation
from tests.fakes.realtime_script import Event, Fault, Item

PCM = {"type": "audio/pcm", "rate": PCM_RATE_HZ}
SERVER_VAD = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
SEMANTIC_VAD = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}


def default_session(session_id: str, model: str, expires_at: int) -> Event:
    """What session.created tells: defaults that no client should rely on."""
    return {
        "id": session_id,
        "object": "realtime.session",
        "type": "realtime",
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "Your knowledge cutoff is 2023-10. You are a helpful, witty, and friendly AI.",
        "audio": {
            "input": {
                "format": dict(PCM),
                "noise_reduction": None,
                "transcription": None,
                "turn_detection": dict(SERVER_VAD),
            },
            "output": {"format": dict(PCM), "voice": "marin", "speed": 1.0},
        },
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
        "expires_at": expires_at,
    }


def updated(session: Event, wish: Event, fault: Fault, *, has_spoken: bool) -> Event:
    """The session with the fields of a valid session.update in force.

    Raises:
        Violation: a field that cannot be changed any more.
    """
    if wish.get("model", session["model"]) != session["model"]:
        raise Violation("invalid_value", "The model of a session cannot be changed.", "session.model")
    result: Event = copy.deepcopy(session)
    result.update({name: value for name, value in wish.items() if name != "audio"})
    audio = wish.get("audio", {})
    voice = result["audio"]["output"]["voice"]
    for direction in ("input", "output"):
        result["audio"][direction].update(audio.get(direction, {}))
    if has_spoken and result["audio"]["output"]["voice"] != voice:
        message = "Cannot update a conversation's voice if assistant audio is present."
        raise Violation("cannot_update_voice", message, "session.audio.output.voice")
    turns = result["audio"]["input"]["turn_detection"]
    if turns:
        defaults = SERVER_VAD if turns["type"] == "server_vad" else SEMANTIC_VAD
        result["audio"]["input"]["turn_detection"] = {**defaults, **turns}
    for direction, kind in (("input", fault.input_format), ("output", fault.output_format)):
        if kind:
            result["audio"][direction]["format"] = dict(PCM) if kind == "audio/pcm" else {"type": kind}
    return result


class Conversation:
    """The items in their order; deleted ones are kept for the test's eyes."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self.all: dict[str, Item] = {}
        """Also deleted and out-of-band ones, by id."""

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def last_id(self) -> str | None:
        return self._items[-1].id if self._items else None

    def append(self, item: Item) -> str | None:
        """Returns the id of the item before it."""
        previous = self.last_id
        self._items.append(item)
        self.all[item.id] = item
        return previous

    def insert(self, item: Item, previous_item_id: str | None) -> str | None:
        """As conversation.item.create has it.

        Raises:
            Violation: the id is taken, the previous item or the call answered does not exist.
        """
        if item.id in self.all:
            message = f"Error adding item: the item with id '{item.id}' already exists."
            raise Violation("item_create_duplicate_id", message, "item.id")
        data = item.data
        calls = {each.data.get("call_id") for each in self._items if each.data["type"] == "function_call"}
        if data["type"] == "function_call_output" and data["call_id"] not in calls:
            message = f"Tool call ID '{data['call_id']}' not found in conversation."
            raise Violation("invalid_tool_call_id", message, "item.call_id")
        if previous_item_id is None:
            return self.append(item)
        place = 0
        if previous_item_id != "root":
            place = 1 + self._items.index(self.find(previous_item_id, "create_invalid_previous"))
        self._items.insert(place, item)
        self.all[item.id] = item
        return None if previous_item_id == "root" else previous_item_id

    def find(self, item_id: str, deed: str) -> Item:
        """Raises `Violation` when the conversation has no such item."""
        for item in self._items:
            if item.id == item_id:
                return item
        verb = {"delete": "deleting", "retrieve": "retrieving", "truncate": "truncating"}.get(deed, "adding")
        code = f"item_{deed}_item_id" if "invalid" in deed else f"item_{deed}_invalid_item_id"
        message = f"Error {verb} item: the item with id '{item_id}' does not exist."
        raise Violation(code, message, "item_id")

    def delete(self, item_id: str) -> None:
        item = self.find(item_id, "delete")
        item.deleted = True
        self._items.remove(item)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut the audio of an assistant's message; its transcript goes.

        Raises:
            Violation: no such item, no such audio, or less of it.
        """
        item = self.find(item_id, "truncate")
        content: list[Any] = item.data.get("content") or []
        if item.data.get("role") != "assistant":
            message = "Only model output audio messages can be truncated"
            raise Violation("invalid_value", message, "item_id")
        if content_index != 0 or any(part["type"] != "output_audio" for part in content):
            raise Violation("invalid_value", "There is no audio at this content_index.", "content_index")
        length_ms = item.audio_ms if item.audio_end_ms is None else item.audio_end_ms
        if audio_end_ms > length_ms:
            message = f"Audio content of {length_ms:.0f}ms is already shorter than {audio_end_ms}ms"
            raise Violation(None, message, None)
        item.audio_end_ms = audio_end_ms
        for part in content:
            part.pop("transcript", None)

"""The conversation of a Realtime session: its items in order, and what of them was said and heard. Core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ari_app.offline.realtime_config import (
    Check,
    Event,
    Invalid,
    array,
    choice,
    fields,
    mapping,
    text,
    variants,
)

MAX_ITEMS = 500
"""The oldest is forgotten, as a server does whose context is full."""


@dataclass(slots=True, eq=False)
class Item:
    """One item, in the form of the protocol, and what the protocol does not show."""

    wire: Event
    pending: bool = False
    """Its audio is not understood yet."""
    ignored: bool = False
    """It turned out to be no speech."""
    audio_ms: float = 0.0
    chunks: list[tuple[str, float]] = field(default_factory=list)
    """The words and the duration of each chunk of audio the assistant spoke."""
    truncated: bool = False

    @property
    def id(self) -> str:
        item_id: str = self.wire["id"]
        return item_id

    @property
    def words(self) -> str:
        """What was said."""
        parts = (part.get("transcript") or part.get("text") or "" for part in self.wire.get("content", ()))
        return " ".join(filter(None, parts))


class Conversation:
    """Items in the order of the conversation."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def pending(self) -> bool:
        """Some audio is not understood yet."""
        return any(item.pending for item in self._items)

    def find(self, item_id: object) -> Item:
        """Raises `Invalid` when there is none."""
        for item in self._items:
            if item.id == item_id:
                return item
        raise Invalid("item_not_found", f"There is no item with the id '{str(item_id)[:80]}'.", "item_id")

    def holds(self, item: Item) -> bool:
        """Whether it was not deleted meanwhile."""
        return item in self._items

    def add(self, item: Item, previous_item_id: object = None) -> str | None:
        """At the end, after an item, or with "root" first; returns the id of the item before it.

        Raises:
            Invalid: there is no such item, or its id is taken.
        """
        if any(other.id == item.id for other in self._items):
            message = f"There is an item with the id '{item.id}' already."
            raise Invalid("item_already_exists", message, "item.id")
        place = len(self._items)
        if previous_item_id == "root":
            place = 0
        elif previous_item_id is not None:
            place = self._items.index(self.find(previous_item_id)) + 1
        previous = self._items[place - 1].id if place else None
        self._items.insert(place, item)
        del self._items[:-MAX_ITEMS]
        return previous

    def delete(self, item_id: object) -> None:
        """Raises `Invalid` when there is none."""
        self._items.remove(self.find(item_id))

    def truncate(self, item_id: object, audio_end_ms: int) -> Item:
        """Forget what the assistant said after `audio_end_ms`: whole words that were heard stay.

        Raises:
            Invalid: no such item, no spoken one, or it is shorter.
        """
        item = self.find(item_id)
        if item.wire.get("role") != "assistant" or not any(
            part["type"] == "output_audio" for part in item.wire["content"]
        ):
            raise Invalid("invalid_value", "Only audio of the assistant can be truncated.", "item_id")
        if audio_end_ms > item.audio_ms:
            length_ms = int(item.audio_ms)
            message = f"Audio content of {length_ms}ms is already shorter than {audio_end_ms}ms"
            raise Invalid(None, message, "audio_end_ms")
        heard: list[str] = []
        end_ms = 0.0
        for words, chunk_ms in item.chunks:
            end_ms += chunk_ms
            if end_ms > audio_end_ms:
                break
            heard.append(words)
        item.truncated = True
        item.audio_ms = float(audio_end_ms)
        item.wire["content"][0]["transcript"] = "".join(heard).strip()
        return item


def as_messages(items: Sequence[Item]) -> list[tuple[str, str]]:
    """Role and text of what was said, for the answerer."""
    return [
        (item.wire["role"], item.words)
        for item in items
        if item.wire["type"] == "message" and not item.ignored and (item.words or item.wire["role"] == "user")
    ]


# --- items that a client makes -----------------------------------------------------------------------

_STATUS = choice("completed", "incomplete", "in_progress")


def _item(required: Sequence[str], **known: Check) -> Check:
    own = {"id": text, "object": choice("realtime.item"), "type": text, "status": _STATUS}
    return fields(own | known, required=tuple(required))


def _message(**parts: Check) -> Check:
    return _item(("role", "content"), role=text, content=array(variants(**parts), 16))


_TEXT_PART = fields({"type": text, "text": text}, required=("text",))
_MESSAGE_OF_ROLE = {
    "system": _message(input_text=_TEXT_PART),
    "user": _message(
        input_text=_TEXT_PART,
        input_audio=fields({"type": text, "audio": lambda v, p: v, "transcript": text}, required=("audio",)),
    ),
    "assistant": _message(output_text=_TEXT_PART),
}


def _checked_message(value: Any, path: str) -> Any:
    role = choice(*_MESSAGE_OF_ROLE)(mapping(value, path).get("role"), f"{path}.role")
    return _MESSAGE_OF_ROLE[role](value, path)


checked_item = variants(
    message=_checked_message,
    function_call=_item(("name", "arguments"), name=text, call_id=text, arguments=text),
    function_call_output=_item(("call_id", "output"), call_id=text, output=text),
)
"""A client's item, or `Invalid`. Images and remote tools (mcp) are refused: nothing here could see or call them."""

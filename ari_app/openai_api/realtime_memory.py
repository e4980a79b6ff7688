"""What a new session is told of the call so far. Core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ari_app.dialog.history import INTERRUPTED, History
from ari_app.dialog.ports import BotSaid, CallerSaid, Fact
from ari_app.openai_api import realtime_protocol as protocol
from ari_app.openai_api.realtime_caller import CallerTurn
from ari_app.openai_api.realtime_protocol import Event, RealtimeSettings
from ari_app.openai_api.realtime_speech import SpokenResponse


def as_items(
    history: History, pending: Iterable[tuple[object, Fact | None]], settings: RealtimeSettings
) -> list[Event]:
    """The words of the history, and after them what is `pending`: who spoke, and the words where they are known."""
    items = [
        protocol.message("user" if message.role == "user" else "assistant", message.content)
        for message in history.messages()
    ]
    items += filter(None, (_as_item(who, fact, settings) for who, fact in pending))
    return [protocol.item_create(item) for item in items]


def _as_item(who: object, fact: Fact | None, settings: RealtimeSettings) -> dict[str, Any] | None:
    """What somebody said that is not in the history yet, as well as it is known; None when it is not."""
    match who, fact:
        case CallerTurn(), CallerSaid(text=text):
            return protocol.message("user", text)
        case CallerTurn(understood=False, pcm=pcm), None if pcm:
            who.handed_on = True
            audio = protocol.Uplink(settings).push(pcm)
            return {"id": who.item_id, **protocol.spoken_message(audio)}
        case SpokenResponse(), BotSaid(heard=heard, interrupted=cut) if heard:
            return protocol.message("assistant", f"{heard} {INTERRUPTED}" if cut else heard)
        case SpokenResponse(has_audio=True, text=text, broken=broken), None if text:
            return protocol.message("assistant", f"{text} {INTERRUPTED}" if broken else text)
    return None

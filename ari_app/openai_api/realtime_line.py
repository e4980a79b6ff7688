"""What a conversation needs of a session. Core, types only."""

from __future__ import annotations

from typing import Protocol

from ari_app.openai_api.realtime_protocol import Event


class Line(Protocol):
    """A session that is up."""

    def send(self, event: Event) -> None: ...

    def send_audio(self, audio: str) -> None:
        """Append caller audio, base64."""
        ...

    def abandon(self, why: str) -> None:
        """It is no use any more: take it for lost."""
        ...

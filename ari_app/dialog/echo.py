"""The echo brain: plays the caller back to the caller. The media-path test and the benchmark's floor."""

from __future__ import annotations

from collections.abc import Callable

from ari_app.dialog.ports import Fact, Playout, PlayoutMark


class Echo:
    """Implements `Brain`."""

    def prepare(self) -> None: ...

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        self._playout = playout

    def push_audio(self, frame: bytes, now: float) -> None:
        self._playout.play("echo", frame)

    def push_sent(self, frame: bytes) -> None: ...

    def push_mark(self, mark: PlayoutMark, now: float) -> None: ...

    def note_said(self, text: str) -> None: ...

    async def close(self) -> None: ...

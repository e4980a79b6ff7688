"""Sentences spoken in advance, while the engines work, and kept for the day they don't. Shell."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TypeVar

from ari_app.apart import apart
from ari_app.audio.format import TELEPHONE_RATE_HZ
from ari_app.dialog.known_speech import narrowed
from ari_app.dialog.phrasebook import Phrasebook
from ari_app.dialog.ports import PcmChunk, TextToSpeech
from ari_app.errors import EngineError

logger = logging.getLogger(__name__)

T = TypeVar("T")

Render = Callable[[str], Awaitable[bytes]]
"""Speaks a sentence: PCM16 at 8 kHz; raises EngineError."""

AT_ONCE = 2
"""Sentences in work at the same time: a rate limit is for callers."""
START_S = 10.0
"""So long the start waits for the sentences of the first language."""
RETRY_S = 30.0
MAX_KEPT = 500
"""Files; the ones unused for longest make room."""


class Shelf:
    """Speech kept on disk between two runs: a server that starts while its engine is down has its sentences.

    Args:
        directory: made when needed; nobody else may read it.
        voice: what makes the speech what it is: server, model, voice.
    """

    def __init__(self, directory: Path, voice: Iterable[object]) -> None:
        self._directory = directory
        self._voice = repr(list(voice))

    def _path(self, text: str) -> Path:
        name = hashlib.sha256(f"{self._voice}\n{text}".encode()).hexdigest()[:32]
        return self._directory / f"{name}.pcm"

    def get(self, text: str) -> bytes:
        """Its speech; empty when it is not there."""
        path = self._path(text)
        try:
            pcm = path.read_bytes()
            os.utime(path)
        except OSError:
            return b""
        return pcm if len(pcm) % 2 == 0 else b""

    def put(self, text: str, pcm: bytes | bytearray) -> None:
        """Keep it, if that is possible."""
        path = self._path(text)
        half = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            half.write_bytes(pcm)
            half.replace(path)
            kept = sorted(self._directory.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
            for file in kept[MAX_KEPT:]:
                file.unlink(missing_ok=True)
        except OSError as error:
            logger.debug("speech is not kept: %s", error)
            with contextlib.suppress(OSError):
                half.unlink(missing_ok=True)


class KeptSpeech:
    """Implements `TextToSpeech`: from its shelf what is there; the rest by an engine, and from then on it is there."""

    def __init__(self, tts: TextToSpeech, shelf: Shelf) -> None:
        self._tts = tts
        self._shelf = shelf

    async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
        """Stream the speech of `text`.

        Raises:
            EngineError: before or between chunks.
        """
        if pcm := await _on_disk(partial(self._shelf.get, text)):
            yield PcmChunk(pcm, TELEPHONE_RATE_HZ)
            return
        whole = bytearray()
        async with aclosing(narrowed(self._tts, text)) as pieces:
            async for piece in pieces:
                whole += piece
                yield PcmChunk(piece, TELEPHONE_RATE_HZ)
        await _on_disk(partial(self._shelf.put, text, whole))


async def _on_disk(work: Callable[[], T]) -> T | None:
    """What `work` gives, while calls go on; as many wait for the disk at most as are AT_ONCE in work."""
    try:
        return await apart(work)
    except RuntimeError as error:  # no thread is left: as with a disk that keeps nothing
        logger.debug("speech is not looked for or not kept: %s", error)
        return None


async def rehearse(phrases: Phrasebook, texts: Iterable[str], render: Render) -> None:
    """Make the speech of `texts`, as far as that works.

    Raises:
        EngineError: a permanent one: a wrong key or model is for the operator to mend now, not for callers to find out.
    """
    room = asyncio.Semaphore(AT_ONCE)
    faults: list[EngineError] = []

    async def speak(text: str) -> None:
        async with room:
            if not faults:
                try:
                    phrases.put(text, await render(text))
                except EngineError as error:
                    faults.append(error)

    await asyncio.gather(*(speak(text) for text in texts))
    for error in faults:
        if error.permanent:
            raise error
        logger.warning("the application's own sentences can't all be spoken yet: %s", error)
        return


async def rehearse_in_time(phrases: Phrasebook, texts: Iterable[str], render: Render) -> None:
    """`rehearse`, given up after START_S; what is missing then is a tone until it is made.

    Raises:
        EngineError: a permanent one.
    """
    try:
        async with asyncio.timeout(START_S):
            await rehearse(phrases, texts, render)
    except TimeoutError:
        logger.warning(
            "the application's own sentences took longer than %g s: a tone takes their place for now", START_S
        )


async def rehearse_the_rest(phrases: Phrasebook, render: Render) -> None:
    """Make what is missing, and try again until nothing is."""
    while texts := phrases.missing():
        try:
            await rehearse(phrases, texts, render)
        except EngineError as error:
            logger.warning("the application's own sentences can't be spoken: %s", error)
        if phrases.missing():
            await asyncio.sleep(RETRY_S)

"""Sentences spoken in advance, on a real disk."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import pytest

from ari_app import rehearsal
from ari_app.audio.format import TELEPHONE_RATE_HZ
from ari_app.dialog.engines import AnyTextToSpeech
from ari_app.dialog.known_speech import rendered
from ari_app.dialog.phrasebook import Phrasebook
from ari_app.dialog.ports import PcmChunk
from ari_app.errors import EngineRejected, EngineUnreachable
from ari_app.rehearsal import KeptSpeech, Render, Shelf, rehearse, rehearse_in_time, rehearse_the_rest

BROKEN = EngineUnreachable("text-to-speech", "nobody answers")
VOICE = ("url", "model", "alloy")


class Voice:
    """Says a text as its bytes, after the faults it was given."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.asked: list[str] = []

    async def __call__(self, text: str) -> bytes:
        self.asked.append(text)
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.pop(0)
        return text.encode("utf-16-le")

    async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
        for letter in await self(text):
            yield PcmChunk(bytes([letter, 1]), TELEPHONE_RATE_HZ)


def by(*kept: KeptSpeech) -> Render:
    return partial(rendered, AnyTextToSpeech(*kept))


def book(*texts: str) -> Phrasebook:
    return Phrasebook({"en": dict(zip("abcdefgh", texts, strict=False))})


async def test_what_was_spoken_once_is_known_to_the_next_run(tmp_path: Path) -> None:
    directory = tmp_path / "speech"
    phrases = book("One.", "Two.")
    await rehearse(phrases, phrases.missing(), by(KeptSpeech(Voice(), Shelf(directory, VOICE))))
    again, silent = book("One.", "Two."), Voice(BROKEN)
    await rehearse(again, again.missing(), by(KeptSpeech(silent, Shelf(directory, VOICE))))
    assert again.by_heart == phrases.by_heart and len(phrases.by_heart) == 2
    assert silent.asked == []
    assert directory.stat().st_mode & 0o077 == 0


async def test_what_a_fallback_spoke_is_not_the_primary_s_tomorrow(tmp_path: Path) -> None:
    primary, other = Shelf(tmp_path, VOICE), Shelf(tmp_path, ("url", "model", "marin"))
    broken, fallback = Voice(BROKEN, BROKEN), Voice()
    assert await by(KeptSpeech(broken, primary), KeptSpeech(fallback, other))("One.")
    assert (primary.get("One."), len(other.get("One."))) == (b"", 2 * 2 * len("One."))
    mended = Voice()
    assert await by(KeptSpeech(mended, primary), KeptSpeech(fallback, other))("One.")
    assert mended.asked == ["One."] and primary.get("One.")
    assert fallback.asked == ["One."]


async def test_speech_that_breaks_off_is_not_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, VOICE)

    class Broken(Voice):
        async def speak(self, text: str) -> AsyncGenerator[PcmChunk, None]:
            yield PcmChunk(b"xx", TELEPHONE_RATE_HZ)
            raise BROKEN

    with pytest.raises(EngineUnreachable):
        await by(KeptSpeech(Broken(), shelf))("One.")
    assert shelf.get("One.") == b""


async def test_another_voice_speaks_anew(tmp_path: Path) -> None:
    Shelf(tmp_path, VOICE).put("One.", b"xx")
    assert Shelf(tmp_path, ("url", "model", "marin")).get("One.") == b""
    assert Shelf(tmp_path, VOICE).get("One.") == b"xx"


async def test_half_a_sample_is_not_speech(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, VOICE)
    shelf.put("One.", b"xxx")
    assert shelf.get("One.") == b""


async def test_the_shelf_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MAX_KEPT", 3)
    shelf = Shelf(tmp_path, VOICE)
    known: set[Path] = set()
    for number in range(3):
        shelf.put(str(number), b"xx")
        (file,) = set(tmp_path.iterdir()) - known
        known.add(file)
        os.utime(file, (number, number))
    assert shelf.get("0") == b"xx", "reading keeps it young"
    shelf.put("3", b"xx")
    assert [bool(shelf.get(str(number))) for number in range(4)] == [True, False, True, True]


async def test_a_disk_that_keeps_nothing_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    phrases = book("One.")
    await rehearse(
        phrases, phrases.missing(), by(KeptSpeech(Voice(), Shelf(tmp_path / "file" / "speech", VOICE)))
    )
    assert phrases.missing() == []


async def test_calls_do_not_wait_for_the_disk_of_what_is_kept(tmp_path: Path) -> None:
    class Watched(Shelf):
        threads: list[threading.Thread] = []

        def get(self, text: str) -> bytes:
            self.threads.append(threading.current_thread())
            return super().get(text)

        def put(self, text: str, pcm: bytes | bytearray) -> None:
            self.threads.append(threading.current_thread())
            super().put(text, pcm)

    shelf, voice = Watched(tmp_path, VOICE), Voice()
    for _ in range(2):
        assert await by(KeptSpeech(voice, shelf))("One.")
    assert voice.asked == ["One."] and len(shelf.threads) == 3
    assert threading.current_thread() not in shelf.threads


async def test_a_moment_without_threads_keeps_nothing_and_costs_nothing(tmp_path: Path) -> None:
    usual_bytes = threading.stack_size(2**46)  # of which the kernel has none
    try:
        assert await by(KeptSpeech(Voice(), Shelf(tmp_path, VOICE)))("One.")
    finally:
        threading.stack_size(usual_bytes)
    assert not list(tmp_path.iterdir())


async def test_a_wrong_key_is_told_at_the_start_and_a_dead_server_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = EngineRejected("text-to-speech", "the API key was refused", permanent=True)
    with pytest.raises(EngineRejected):
        await rehearse_in_time(book("One."), ["One."], Voice(refused))
    monkeypatch.setattr(rehearsal, "RETRY_S", 0.01)
    phrases, voice = book("One.", "Two."), Voice(BROKEN, refused)
    await rehearse_in_time(phrases, ["One."], voice)
    assert len(phrases.missing()) == 2
    await asyncio.wait_for(rehearse_the_rest(phrases, voice), 5)
    assert phrases.missing() == []


async def test_the_start_does_not_wait_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "START_S", 0.05)
    phrases = book("One.", "Two.")

    async def hang(text: str) -> bytes:
        if text == "Two.":
            await asyncio.Event().wait()
        return b"xx"

    await asyncio.wait_for(rehearse_in_time(phrases, phrases.missing(), hang), 5)
    assert phrases.missing() == ["Two."], "what was made is kept"

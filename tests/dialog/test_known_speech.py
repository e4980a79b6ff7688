"""What is known is spoken without the engine, the rest with it."""

from __future__ import annotations

import pytest

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.known_speech import KnownSpeech, rendered
from ari_app.dialog.ports import PcmChunk
from ari_app.errors import EngineError, EngineUnreachable
from tests.fakes.brain_ports import SPOKEN_MS_PER_CHAR, ScriptedTts


async def test_a_known_sentence_needs_no_engine() -> None:
    engine = ScriptedTts()
    pcm = await rendered(engine, "Hello.")
    assert bytes_to_ms(len(pcm)) == pytest.approx(len("Hello.") * SPOKEN_MS_PER_CHAR, abs=1)
    voice = KnownSpeech(engine, {"Hello.": pcm})
    assert [chunk async for chunk in voice.speak("Hello.")] == [PcmChunk(pcm, 8000)]
    assert [chunk.rate_hz async for chunk in voice.speak("Goodbye.")] == [24000, 24000]
    assert engine.spoken == ["Hello.", "Goodbye."]
    assert engine.open == 0


async def test_the_engines_fault_is_told() -> None:
    engine = ScriptedTts({"Hello.": EngineUnreachable("text-to-speech", "nobody answers")})
    with pytest.raises(EngineError):
        await rendered(engine, "Hello.")
    with pytest.raises(EngineError):
        async for _ in KnownSpeech(engine, {"Hello.": b""}).speak("Hello."):
            pass


async def test_who_stops_listening_closes_the_engine() -> None:
    engine = ScriptedTts()
    speech = KnownSpeech(engine, {}).speak("Goodbye.")
    await anext(speech)
    await speech.aclose()
    assert engine.open == 0

"""The synchronous bridge: a conversation through its four calls, against engines on loopback."""

from __future__ import annotations

import asyncio
import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

import pytest

import ari_app
from ari_app.bridge import MAX_UNHEARD_MS, AudioBridge, OpenAIRealtimeBridge, WhisperAssistantBridge
from ari_app.dialog.manner import PipelineSettings
from ari_app.dialog.ports import BargeIn, BotSaid, CallerSaid, Fact
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.realtime_patience import Manners
from ari_app.openai_api.realtime_protocol import RealtimeSettings
from tests.fakes.openai_server import FakeOpenAI, chat, fake_openai, speech, transcript
from tests.fakes.realtime_server import Answer, FakeRealtime
from tests.fakes.realtime_server import running as fake_realtime

S = TypeVar("S")

RATE_HZ = 16_000


def tone(ms: int, rate_hz: int, every: int = 8) -> bytes:
    count = ms * rate_hz // 1000
    return struct.pack(f"<{count}h", *(int(9000 * math.sin(n * 2 * math.pi / every)) for n in range(count)))


@contextmanager
def served(
    script: Callable[[S], None], serving: Callable[[str], AbstractAsyncContextManager[S]]
) -> Iterator[S]:
    """A fake server on a loop in another thread, as the bridge's own calls block this one."""
    up, down = threading.Event(), threading.Event()
    servers: list[S] = []
    faults: list[BaseException] = []

    async def serve() -> None:
        async with serving("none") as server:
            script(server)
            servers.append(server)
            up.set()
            await asyncio.to_thread(down.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as fault:
            faults.append(fault)
            up.set()

    thread = threading.Thread(target=run)
    thread.start()
    up.wait()
    try:
        yield servers[0]
    finally:
        down.set()
        thread.join()
    assert not faults, faults


def make(server: FakeOpenAI, facts: list[Fact], **settings: object) -> WhisperAssistantBridge:
    stage = StageSettings(server.url, "some-model")
    return WhisperAssistantBridge(
        stage,
        stage,
        stage,
        voice="alloy",
        settings=PipelineSettings(silence_duration_ms=300, **settings),  # type: ignore[arg-type]
        rate_hz=RATE_HZ,
        on_fact=facts.append,
    )


def listen(bridge: AudioBridge, until: Callable[[], object], limit_s: float = 10) -> bytes:
    heard = b""
    end = time.monotonic() + limit_s
    while not until():
        assert time.monotonic() < end, "it did not come"
        frame = bridge.recv_pcm(0.02)
        if frame:
            assert len(frame) == RATE_HZ // 50 * 2
            heard += frame
    while frame := bridge.recv_pcm(0.2):
        heard += frame
    return heard


def bridge_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "bridge" in thread.name]


def test_a_conversation_by_four_calls() -> None:
    def script(server: FakeOpenAI) -> None:
        server.stt.append(transcript("Hello there."))
        server.chat.append(chat("Welcome."))
        server.tts += [speech(tone(300, 24_000, 48)), speech(tone(400, 24_000, 48))]

    facts: list[Fact] = []
    with served(script, fake_openai) as server:
        bridge = make(server, facts, greeting="Hi.")
        bridge.start()
        started = time.monotonic()
        greeting = listen(bridge, lambda: any(isinstance(f, BotSaid) for f in facts))
        assert time.monotonic() - started >= 0.25, "speech is paced"
        bridge.send_pcm(tone(600, RATE_HZ)[:-1])  # half a sample short, completed by what follows
        bridge.send_pcm(b"\0")
        answer = listen(bridge, lambda: sum(isinstance(f, BotSaid) for f in facts) == 2)
        bridge.stop()
        bridge.stop()
    assert not bridge_threads()
    for pcm, ms in ((greeting, 300), (answer, 400)):
        samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
        loud = [n for n, sample in enumerate(samples) if abs(sample) > 2000]
        assert (loud[-1] - loud[0]) * 1000 / RATE_HZ == pytest.approx(ms, abs=25)
        assert 8000 < max(samples) < 10_000
    assert [f.text for f in facts if isinstance(f, CallerSaid)] == ["Hello there."]
    assert bridge.recv_pcm(0.01) is None
    bridge.send_pcm(b"\0\0")


def test_a_realtime_conversation_by_the_same_four_calls() -> None:
    def script(server: FakeRealtime) -> None:
        server.answers = [Answer("Hi.", audio_ms=300), Answer("Welcome.", audio_ms=400)]
        server.transcripts = ["Hello there."]

    facts: list[Fact] = []
    settings = RealtimeSettings("m", "alloy", silence_duration_ms=300, transcription_model="gpt-transcribe")
    with served(script, fake_realtime) as server:
        bridge = OpenAIRealtimeBridge(
            *(server.url, "none", settings),
            manners=Manners(greeting="Hi."),
            rate_hz=RATE_HZ,
            on_fact=facts.append,
        )
        bridge.start()
        greeting = listen(bridge, lambda: any(isinstance(f, BotSaid) for f in facts))
        bridge.send_pcm(tone(600, RATE_HZ))
        answer = listen(bridge, lambda: sum(isinstance(f, BotSaid) for f in facts) == 2)
        bridge.stop()
        assert server.faults == [] and server.errors == []
    assert not bridge_threads()
    for pcm, ms in ((greeting, 300), (answer, 400)):
        samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
        loud = [n for n, sample in enumerate(samples) if abs(sample) > 2000]
        assert (loud[-1] - loud[0]) * 1000 / RATE_HZ == pytest.approx(ms, abs=25)
    assert [f.text for f in facts if isinstance(f, CallerSaid)] == ["Hello there."]


def test_speaking_over_the_bot_stops_it() -> None:
    def script(server: FakeOpenAI) -> None:
        server.stt.append(transcript("Stop."))
        server.chat.append(chat("All right."))
        server.tts += [speech(tone(4000, 24_000, 48)), speech(tone(100, 24_000, 48))]

    facts: list[Fact] = []
    with served(script, fake_openai) as server:
        bridge = make(server, facts, greeting="A very long greeting without an end")
        bridge.start()
        frames = 0
        while frames < 50:
            frames += bridge.recv_pcm(0.1) is not None
        bridge.send_pcm(tone(600, RATE_HZ))
        listen(bridge, lambda: sum(isinstance(f, BotSaid) for f in facts) == 2)
        bridge.stop()
    assert sum(isinstance(f, BargeIn) for f in facts) == 1
    greeting, answer = (f for f in facts if isinstance(f, BotSaid))
    assert greeting.interrupted and greeting.heard.startswith("A very")  # 35 characters in 4 s
    assert answer.heard == "All right."


def test_stopping_at_once_and_before_starting() -> None:
    with served(lambda server: None, fake_openai) as server:
        bridge = make(server, [])
        bridge.stop()
        bridge = make(server, [])
        bridge.start()
        bridge.stop()
        with pytest.raises(RuntimeError):
            bridge.start()
    assert not bridge_threads()


def test_unheard_audio_is_bounded() -> None:
    stage = StageSettings("http://127.0.0.1:9/v1", "some-model")
    bridge = WhisperAssistantBridge(stage, stage, stage, voice="alloy")
    for _ in range(30):
        bridge.send_pcm(bytes(8001))
    assert MAX_UNHEARD_MS * 16 - 2 <= len(bridge._unheard) <= MAX_UNHEARD_MS * 16


def test_the_package_exports_it() -> None:
    assert ari_app.WhisperAssistantBridge is WhisperAssistantBridge
    assert ari_app.OpenAIRealtimeBridge is OpenAIRealtimeBridge
    with pytest.raises(AttributeError):
        ari_app.NoSuchThing  # noqa: B018

"""The benchmark's engine: an OpenAI-compatible server whose every delay is declared, so that figures are ours.

    python -m bench.engine --profile fast        prints "listening on URL"

What a stage answers hardly matters, when it answers does: it speaks a tone, another one for each answer. Where words do
matter `--script` names the recordings it knows and what a real engine understood of them, and `--speech` gives the bot
a real voice.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import wave
from array import array
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from ari_app.audio.resample import resample
from ari_app.offline import voice
from bench.realtime import Conversation

TTS_RATE_HZ = 24_000
TONES_HZ = (400, 600, 800, 500, 700)
"""One after the other, answer by answer: what goes on is told from what is new."""
TONE_LEVEL = 8000
CHUNK_MS = 100
MS_PER_CHAR = 60
"""Speaking rate of the tone: about 16 characters a second."""


@dataclass(frozen=True)
class Profile:
    """How slow each stage is."""

    stt_ms: float
    """From the end of the upload to the transcript."""
    first_token_ms: float
    first_byte_ms: float
    """Of speech, from the request on."""
    tokens_per_s: float = 100.0
    speech_per_s: float = 5.0
    """Seconds of speech that a second brings."""

    @property
    def total_ms(self) -> float:
        """What the caller waits for at least: the stages one after the other, with one word to begin with.

        The word is known to be over when the second one comes.
        """
        return self.stt_ms + self.first_token_ms + 1000 / self.tokens_per_s + self.first_byte_ms


PROFILES = {
    "instant": Profile(0, 0, 0, 1000.0, 100.0),
    "fast": Profile(150, 200, 120),
    "typical": Profile(400, 500, 300),
}
ANSWER = "Certainly, we can do that for you. It takes two days, and you will get a message when it is ready."
"""The first words of each answer are short ones, as a chat model's are."""
LONG_ANSWER = " ".join(
    ["Number @ is something we can do for you.", *["Part @ takes two days until it is ready."] * 12]
)
"""@ is the number of the answer in its call."""


@lru_cache
def tone(ms: float, hz: int) -> bytes:
    """PCM16 at `TTS_RATE_HZ`; any two join without a click when `ms` is a whole number of periods."""
    samples = range(round(ms * TTS_RATE_HZ / 1000))
    levels = [round(TONE_LEVEL * math.sin(2 * math.pi * i * hz / TTS_RATE_HZ)) for i in samples]
    return array("h", levels).tobytes()


@lru_cache
def speech(text: str) -> bytes:
    """Real speech at `TTS_RATE_HZ`."""
    return resample(
        b"".join(voice.speak(piece, "en-US") for piece in voice.pieces(text)), 16_000, TTS_RATE_HZ
    )


ENVELOPE_SAMPLES = 80
"""10 ms: how loud a recording is from moment to moment tells it from the others."""
MATCH = 0.9
"""A recording is what was heard when so much of both envelopes is common to them."""


def envelope(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """RMS of every 10 ms of 8 kHz audio."""
    whole = samples[: len(samples) // ENVELOPE_SAMPLES * ENVELOPE_SAMPLES].reshape(-1, ENVELOPE_SAMPLES)
    return np.asarray(np.sqrt(np.square(whole).mean(axis=1)))


@dataclass(frozen=True)
class Known:
    """A recording, by its envelope, and what is said in it."""

    shape: NDArray[np.float64]
    text: str


def recognised(pcm: bytes, known: Sequence[Known], match: float = MATCH) -> str | None:
    """The text of the recording that was heard: the best match of 8 kHz audio, where one is as good as `match`."""
    heard = envelope(np.frombuffer(pcm, "<i2").astype(float))
    best, text = match, None
    for recording in known:
        energy = math.sqrt(float(heard @ heard) * float(recording.shape @ recording.shape)) or 1.0
        likeness = float(np.correlate(heard, recording.shape, "full").max()) / energy
        if likeness > best:
            best, text = likeness, recording.text
    return text


class Engine:
    """The handlers; `counts` tells how often each stage was asked and how often left before the end."""

    def __init__(
        self, profile: Profile, answer: str, known: Sequence[Known] = (), *, speaks: bool = False
    ) -> None:
        self._profile = profile
        self._answer = answer
        self._known = known
        self.match = MATCH
        self._speaks = speaks
        self.counts: Counter[str] = Counter()

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=32 * 2**20)
        application.add_routes(
            [
                web.get("/v1/models", self._models),
                web.get("/counts", self._counts),
                web.post("/v1/audio/transcriptions", self._transcriptions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/audio/speech", self._speech),
                web.get("/v1/realtime", self._realtime),
            ]
        )
        return application

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def _counts(self, request: web.Request) -> web.Response:
        return web.json_response({"profile": asdict(self._profile), **self.counts})

    async def _transcriptions(self, request: web.Request) -> web.Response:
        try:
            form = await request.post()
        except ConnectionError:
            self.counts["stt cancelled"] += 1
            return web.Response()
        due = asyncio.get_running_loop().time() + self._profile.stt_ms / 1000
        self.counts["stt"] += 1
        text: str | None = f"Sentence {self.counts['stt']}."
        if self._known:
            upload = form["file"]
            assert isinstance(upload, web.FileField)
            with wave.open(io.BytesIO(upload.file.read())) as file:
                pcm = resample(file.readframes(file.getnframes()), file.getframerate(), 8000)
            text = recognised(pcm, self._known, self.match)
            self.counts["unknown"] += text is None
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        return web.json_response({"text": text or ""})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        messages = (await request.json())["messages"]
        self.counts["chat"] += 1
        said = sum(message["role"] == "user" for message in messages)
        answer = self._answer.replace("@", str(said))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            await asyncio.sleep(self._profile.first_token_ms / 1000)
            for number, word in enumerate(answer.split(" ")):
                if number:
                    await asyncio.sleep(1 / self._profile.tokens_per_s)
                await _delta(response, {"content": word if number == 0 else f" {word}"}, None)
            await _delta(response, {}, "stop")
            await response.write(b"data: [DONE]\n\n")
        except ConnectionError:
            self.counts["chat cancelled"] += 1
        return response

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.counts["tts"] += 1
        response = web.StreamResponse(headers={"Content-Type": f"audio/pcm;rate={TTS_RATE_HZ}"})
        try:
            await asyncio.sleep(self._profile.first_byte_ms / 1000)
            await response.prepare(request)
            for chunk in self._spoken(body["input"]):
                await response.write(chunk)
                await asyncio.sleep(CHUNK_MS / 1000 / self._profile.speech_per_s)
        except ConnectionError:
            self.counts["tts cancelled"] += 1
        return response

    async def _realtime(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, protocols=("realtime",))
        await socket.prepare(request)
        self.counts["realtime"] += 1
        conversation = Conversation(
            socket,
            delay_s=self._profile.total_ms / 1000,
            speech_per_s=self._profile.speech_per_s,
            answer=lambda number: self._answer.replace("@", str(number)),
            spoken=self._spoken,
        )
        await conversation.run()
        return socket

    def _spoken(self, text: str) -> list[bytes]:
        if self._speaks:
            pcm, step = speech(text), CHUNK_MS * TTS_RATE_HZ // 1000 * 2
            return [pcm[at : at + step] for at in range(0, len(pcm), step)]
        number = int("".join(filter(str.isdigit, text)) or 0)
        chunks = max(1, round(len(text) * MS_PER_CHAR / CHUNK_MS))
        return [tone(CHUNK_MS, TONES_HZ[number % len(TONES_HZ)])] * chunks


async def _delta(response: web.StreamResponse, delta: dict[str, str], finish: str | None) -> None:
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


async def serve(engine: Engine) -> None:
    """Serve on a free loopback port until cancelled."""
    runner = web.AppRunner(engine.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="The benchmark's engine.")
    parser.add_argument("--profile", choices=PROFILES, default="fast")
    parser.add_argument("--long", action="store_true", help="answer at length")
    parser.add_argument("--speech", action="store_true", help="a real voice instead of tones")
    parser.add_argument("--script", type=Path, help="JSON: recordings and what is said in them")
    arguments = parser.parse_args()
    known = [
        Known(envelope(np.frombuffer(b64decode(entry["pcm"]), "<i2").astype(float)), entry["text"])
        for entry in (json.loads(arguments.script.read_text()) if arguments.script else ())
    ]
    answer = LONG_ANSWER if arguments.long else ANSWER
    asyncio.run(serve(Engine(PROFILES[arguments.profile], answer, known, speaks=arguments.speech)))


if __name__ == "__main__":
    main()

"""The benchmark's engine: an OpenAI-compatible server whose every delay is declared, so that figures are ours.

    python -m bench.engine --profile fast        prints "listening on URL"

It recognises nothing and speaks a tone: what a stage answers does not matter, when it answers does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from array import array
from collections import Counter
from dataclasses import asdict, dataclass

from aiohttp import web

TTS_RATE_HZ = 24_000
TONE_HZ = 400
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
LONG_ANSWER = " ".join([ANSWER] * 6)


def tone(ms: float) -> bytes:
    """PCM16 at `TTS_RATE_HZ`; any two tones join without a click when `ms` is a whole number of periods."""
    period = [
        round(TONE_LEVEL * math.sin(2 * math.pi * i * TONE_HZ / TTS_RATE_HZ))
        for i in range(TTS_RATE_HZ // TONE_HZ)
    ]
    return array("h", period * round(ms * TONE_HZ / 1000)).tobytes()


class Engine:
    """The handlers; `counts` tells how often each stage was asked and how often left before the end."""

    def __init__(self, profile: Profile, answer: str) -> None:
        self._profile = profile
        self._words = answer.split(" ")
        self._chunk = tone(CHUNK_MS)
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
            ]
        )
        return application

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    async def _counts(self, request: web.Request) -> web.Response:
        return web.json_response({"profile": asdict(self._profile), **self.counts})

    async def _transcriptions(self, request: web.Request) -> web.Response:
        await request.read()
        self.counts["stt"] += 1
        await asyncio.sleep(self._profile.stt_ms / 1000)
        return web.json_response({"text": f"Sentence {self.counts['stt']}."})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.counts["chat"] += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            await asyncio.sleep(self._profile.first_token_ms / 1000)
            for number, word in enumerate(self._words):
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
            for _ in range(max(1, round(len(body["input"]) * MS_PER_CHAR / CHUNK_MS))):
                await response.write(self._chunk)
                await asyncio.sleep(CHUNK_MS / 1000 / self._profile.speech_per_s)
        except ConnectionError:
            self.counts["tts cancelled"] += 1
        return response


async def _delta(response: web.StreamResponse, delta: dict[str, str], finish: str | None) -> None:
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


async def serve(profile: Profile, answer: str) -> None:
    """Serve on a free loopback port until cancelled."""
    runner = web.AppRunner(Engine(profile, answer).application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="The benchmark's engine.")
    parser.add_argument("--profile", choices=PROFILES, default="fast")
    parser.add_argument("--long", action="store_true", help="answer at length")
    arguments = parser.parse_args()
    asyncio.run(serve(PROFILES[arguments.profile], LONG_ANSWER if arguments.long else ANSWER))


if __name__ == "__main__":
    main()

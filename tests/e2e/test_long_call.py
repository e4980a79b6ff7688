"""A Realtime call whose connection is broken three times: no turn that was spoken goes without its answer.

It lasts two minutes; ARI_APP_LONG_CALL_MINUTES makes it longer.
"""

from __future__ import annotations

import asyncio
import os
from itertools import cycle
from pathlib import Path

from ari_app.demo import script
from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.events import follow, wait_for_recording
from ari_app.demo.measure import process_cost
from ari_app.demo.voice import utterance
from tests.e2e.checks import settled, until
from tests.e2e.conftest import Caller, Serve
from tests.e2e.test_conversation import ANSWER_WORDS
from tests.fakes.tcp_proxy import TcpProxy, cuttable

MINUTES = float(os.environ.get("ARI_APP_LONG_CALL_MINUTES", "1.2"))
QUESTIONS = list(zip(script.CALLER_LINES, ANSWER_WORDS, strict=True))[:3]


async def test_no_turn_is_lost_when_the_connection_breaks_three_times(
    asterisk: PrivateAsterisk,
    serve: Serve,
    caller: Caller,
    recordings: Path,
    backend_url: str,
) -> None:
    loop = asyncio.get_running_loop()
    questions = [(await asyncio.to_thread(utterance, line), word) for line, word in QUESTIONS]
    settings = {"SYSTEM_MESSAGE": script.SYSTEM_MESSAGE, "GREETING": script.GREETING, "MODE": "realtime"}
    asked: list[str] = []
    async with (
        cuttable(backend_url) as (proxy, url),
        serve(**settings, OPENAI_BASE_URL=url) as process,
        caller() as ua,
    ):
        began = loop.time()
        call = await ua.dial(asterisk.bot_extension)
        await call.answered(10)
        directory = await wait_for_recording(recordings, set(), 10)
        await call.listen_until_silence(max_s=15)
        breaks = iter((_in_mid_sentence, _before_the_answer, _in_mid_answer))
        every = MINUTES * 60 / 4
        for question, word in cycle(questions):
            elapsed = loop.time() - began
            if elapsed >= MINUTES * 60 and proxy.cuts == 3:
                break
            cutting = None
            if elapsed >= every * (proxy.cuts + 1) and proxy.cuts < 3:
                cutting = asyncio.create_task(next(breaks)(proxy, directory, len(question) / 16000))
            asked.append(word)
            await call.say(question)
            heard = await call.listen_until_silence(min_silence_ms=1800, max_s=25)
            assert heard.sound_s > 0.5, f"dead air after question {len(asked)}"
            if cutting:
                await cutting
        await call.hangup()
        events = [event async for event in follow(directory / "events.jsonl")]
        cost = process_cost(process.pid)
        left = await settled(asterisk, process.pid)
        log = process.log()
    print(f"{len(asked)} turns, {proxy.cuts} cuts, {cost}")  # noqa: T201, shown with -s
    answers = [event["text"].lower() for event in events if event["event"] == "bot_said" and event["turn"]]
    for word in asked:
        while answers and word not in answers[0]:
            answers.pop(0)  # the beginning of an answer that was cut off
        assert answers, f"a question about “{word}” was not answered: {events}"
        answers.pop(0)
    assert not [event for event in events if event["event"] == "engine_failed"]
    assert (left.channels, left.bridges, left.udp_sockets) == (0, 0, 0)
    assert "Traceback" not in log


async def _in_mid_sentence(proxy: TcpProxy, directory: Path, length_s: float) -> None:
    """While the caller speaks."""
    await asyncio.sleep(length_s / 2)
    proxy.cut()


async def _before_the_answer(proxy: TcpProxy, directory: Path, length_s: float) -> None:
    """When the caller has finished, and the server is waiting or thinking."""
    await asyncio.sleep(length_s + 1.1)
    proxy.cut()


async def _in_mid_answer(proxy: TcpProxy, directory: Path, length_s: float) -> None:
    """While the bot speaks."""
    path = directory / "events.jsonl"
    before = path.read_text("utf-8").count('"bot_speech_started"')
    await until(lambda: path.read_text("utf-8").count('"bot_speech_started"') > before, within_s=20)
    await asyncio.sleep(0.2)
    proxy.cut()

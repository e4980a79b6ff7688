"""The offline backend through the real SDK and with the real models: speech -> 8 kHz -> words -> answer -> speech."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import io
import json
import threading
import wave
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from ari_app.audio.resample import StreamResampler
from ari_app.errors import SetupError
from ari_app.offline import server, voice
from ari_app.offline.language import words

SYSTEM = (
    "You answer the phone. Facts: We are open Monday to Friday from nine to six. "
    "On Saturday we open from ten to two. A basic service costs sixty euros."
)
SATURDAY = "On Saturday we open from ten to two."


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    """The server in a thread of its own, its models loaded once for all tests."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = server.running("127.0.0.1", 0)
    try:
        yield asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(60)
    finally:
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(base_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """For what the SDK would not send."""
    async with aiohttp.ClientSession(base_url=base_url + "/") as session:
        yield session


def resampled(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    resampler = StreamResampler(from_hz, to_hz)
    return resampler.push(pcm) + resampler.flush()


def wav(pcm: bytes, rate_hz: int = 8000) -> tuple[str, bytes, str]:
    """An upload as the SDK wants it."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return ("turn.wav", out.getvalue(), "audio/wav")


def spoken(text: str, voice_name: str = "en-US") -> tuple[str, bytes, str]:
    """Speech on the telephone's band."""
    return wav(resampled(voice.speak(text, voice_name), voice.RATE_HZ, 8000))


def word_errors(said: str, heard: str) -> int:
    """Words that differ; an insertion and a deletion side by side count once."""
    opcodes = difflib.SequenceMatcher(None, words(said), words(heard), autojunk=False).get_opcodes()
    return sum(max(a2 - a1, b2 - b1) for tag, a1, a2, b1, b2 in opcodes if tag != "equal")


async def requests_in_work(http: aiohttp.ClientSession) -> int:
    async with http.get("/health") as response:
        requests: int = (await response.json())["requests"]
        return requests


async def until_idle(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(10):
        while await requests_in_work(http):
            await asyncio.sleep(0.01)


async def test_models_and_licences_are_listed(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert listed == list(server.MODELS)
    first_line = server.describe()
    assert "\n" not in first_line
    for name in listed:
        assert name in first_line
    assert "MIT" in first_line and "Apache-2.0" in first_line


# --- speech-to-text ----------------------------------------------------------------------------------


async def test_telephone_speech_is_understood_in_both_languages(client: openai.AsyncOpenAI) -> None:
    lines = (
        ("en", "Hello, what time do you open on Saturday?"),
        ("en", "And how much does a basic service cost?"),
        ("en", "I would like to book a repair for my bicycle."),
        ("en", "Great, thank you very much. Goodbye."),
        ("es", "¿Cuánto cuesta una revisión básica?"),
        ("es", "Muchas gracias, adiós."),
    )
    errors = count = 0
    for language, line in lines:
        answer = await client.audio.transcriptions.create(
            file=spoken(line, voice.VOICE_OF_LANGUAGE[language]), model="any-name"
        )
        assert answer.model_dump()["languages"] == [{"code": language}]
        errors += word_errors(line, answer.text)
        count += len(words(line))
    assert count > 35
    assert errors <= 4


def sound(kind: str, seconds: float) -> bytes:
    """What a telephone line carries when nobody speaks, as PCM16 at 8 kHz."""
    rng = np.random.default_rng(7)
    time_s = np.arange(int(8000 * seconds)) / 8000
    white = rng.standard_normal(len(time_s))
    samples = {
        "silence": np.zeros_like(time_s),
        "hiss": 0.01 * white,
        "loud hiss": 0.1 * white,
        "rumble": 0.02 * np.convolve(white, np.ones(40) / 6, "same"),
        "hum": 0.1 * np.sin(2 * np.pi * 50 * time_s),
        "ringback": 0.1 * (np.sin(2 * np.pi * 440 * time_s) + np.sin(2 * np.pi * 480 * time_s)),
        "digit": 0.2 * (np.sin(2 * np.pi * 770 * time_s) + np.sin(2 * np.pi * 1336 * time_s)),
        "clicks": 0.8 * (np.arange(len(time_s)) % 2000 == 0),
    }[kind]
    pcm: bytes = (samples * 32767).astype("<i2").tobytes()
    return pcm


@pytest.mark.parametrize(
    "kind", ["silence", "hiss", "loud hiss", "rumble", "hum", "ringback", "digit", "clicks"]
)
async def test_no_words_are_heard_where_nobody_speaks(client: openai.AsyncOpenAI, kind: str) -> None:
    for seconds in (0.4, 4.0):
        answer = await client.audio.transcriptions.create(file=wav(sound(kind, seconds)), model="whisper-1")
        assert answer.text == ""


async def test_three_at_once_each_get_their_own_words(client: openai.AsyncOpenAI) -> None:
    lines = ("What time do you open on Saturday?", "My name is John Miller.", "How much does it cost?")
    files = [spoken(line) for line in lines]
    answers = await asyncio.gather(
        *(client.audio.transcriptions.create(file=file, model="whisper-1") for file in files)
    )
    for line, answer in zip(lines, answers, strict=True):
        assert word_errors(line, answer.text) <= 1


async def test_formats_and_rates_of_a_transcription(client: openai.AsyncOpenAI) -> None:
    speech = voice.speak("Good morning, how are you?", "en-US")
    text = await client.audio.transcriptions.create(
        file=wav(speech, 16_000), model="whisper-1", response_format="text", language="en", temperature=0
    )
    assert "morning" in text.lower() and text.endswith("\n")
    verbose = await client.audio.transcriptions.create(
        file=wav(resampled(speech, 16_000, 48_000), 48_000), model="whisper-1", response_format="verbose_json"
    )
    assert verbose.language == "en"
    assert verbose.duration == pytest.approx(len(speech) / 32_000, abs=0.02)
    assert verbose.segments is not None
    (segment,) = verbose.segments
    assert segment.text == verbose.text
    assert segment.no_speech_prob < 0.5
    assert segment.avg_logprob > -1


async def test_the_languages_asked_for_are_the_choice(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(
        file=spoken("Guten Morgen, wie geht es Ihnen?", "de-DE"),
        model="gpt-transcribe",
        extra_body={"languages": ["fr", "de"]},
    )
    assert answer.model_dump()["languages"] == [{"code": "de"}]
    assert "Morgen" in answer.text


async def test_more_than_it_can_do_is_refused_and_abandoned_work_is_dropped(
    client: openai.AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    file = wav(sound("hiss", 0.4))
    tasks = [
        asyncio.create_task(client.audio.transcriptions.create(file=file, model="whisper-1"))
        for _ in range(server.MAX_REQUESTS + 8)
    ]
    refused: list[openai.InternalServerError] = []
    for task in asyncio.as_completed(tasks):
        try:
            await task
        except openai.InternalServerError as error:
            refused.append(error)
            break
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert refused[0].status_code == 503
    assert "busy" in str(refused[0])
    await until_idle(http)


# --- chat --------------------------------------------------------------------------------------------


MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": [{"type": "text", "text": "When do you open on Saturday?"}]},
]


async def test_chat_in_one_piece(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert answer.choices[0].message.content == SATURDAY
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-9"
    assert answer.usage is not None and answer.usage.completion_tokens == len(SATURDAY.split())


@pytest.mark.parametrize("with_usage", [True, False])
async def test_chat_streams_word_by_word(client: openai.AsyncOpenAI, with_usage: bool) -> None:
    stream = await client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": with_usage}
    )
    chunks = [chunk async for chunk in stream]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert choices[0].delta.role == "assistant" and choices[0].delta.content == ""
    texts = [choice.delta.content for choice in choices[1:-1]]
    assert "".join(text or "" for text in texts) == SATURDAY
    assert len(texts) == len(SATURDAY.split())
    assert [choice.finish_reason for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    if with_usage:
        assert chunks[-1].usage == usages[0] and chunks[-1].choices == []
    assert len(usages) == with_usage


# --- text-to-speech ----------------------------------------------------------------------------------


async def heard_again(client: openai.AsyncOpenAI, pcm: bytes, rate_hz: int) -> str:
    file = wav(resampled(pcm, rate_hz, 8000))
    return (await client.audio.transcriptions.create(file=file, model="whisper-1")).text


async def test_speech_streams_while_it_is_made(
    client: openai.AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    request = client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="What time do you open on Saturday? " * 100, response_format="pcm"
    )
    async with request as response:
        assert response.headers["content-type"] == "audio/pcm;rate=24000"
        chunks = response.iter_bytes()
        first = await anext(chunks)
        assert await requests_in_work(http) == 1
        while len(first) < 24_000 * 2 * 2.5:
            first += await anext(chunks)
    await until_idle(http)  # the rest is not made: nobody listens
    assert "Saturday" in await heard_again(client, first[: 24_000 * 5], 24_000)


async def test_between_sentences_there_is_a_short_clean_pause(client: openai.AsyncOpenAI) -> None:
    speech = await client.audio.speech.create(
        model="tts-1", voice="alloy", input="We are open. We are open. We are open.", response_format="pcm"
    )
    samples = np.frombuffer(speech.content, "<i2").astype(np.int32)
    alone = len(voice.speak("We are open.", "en-US")) / 2 / voice.RATE_HZ
    assert len(samples) / 24_000 == pytest.approx(3 * alone + 0.3, abs=0.25)
    loud = np.flatnonzero(np.abs(samples) > 500)
    gaps = [gap / 24_000 for gap in np.diff(loud) if gap > 24_000 * 0.1]  # a click would cut one in two
    assert len(gaps) == 2
    assert all(0.15 < gap < 0.6 for gap in gaps)
    assert np.abs(samples).max() < 32_000


async def test_a_wav_answer_can_be_read_and_its_language_follows_the_text(
    client: openai.AsyncOpenAI,
) -> None:
    speech = await client.audio.speech.create(
        model="tts-1", voice="nova", input="Muchas gracias por llamar.", response_format="wav"
    )
    with wave.open(io.BytesIO(speech.content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        pcm = file.readframes(file.getnframes())
    assert "gracias" in (await heard_again(client, pcm, 24_000)).lower()


async def test_speed_is_honoured(client: openai.AsyncOpenAI) -> None:
    slow, fast = [
        len(
            (
                await client.audio.speech.create(
                    model="m", voice="alloy", input="One, two, three.", response_format="pcm", speed=speed
                )
            ).content
        )
        for speed in (0.5, 2.0)
    ]
    assert slow > 2 * fast


# --- a whole turn ------------------------------------------------------------------------------------


async def test_a_spoken_question_gets_the_right_spoken_answer(client: openai.AsyncOpenAI) -> None:
    question = await client.audio.transcriptions.create(
        file=spoken("Hello, what time do you open on Saturday?", "en-GB"), model="whisper-1"
    )
    answer = await client.chat.completions.create(
        model="m",
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question.text}],
    )
    assert answer.choices[0].message.content == SATURDAY
    speech = await client.audio.speech.create(model="m", voice="alloy", input=SATURDAY, response_format="pcm")
    heard = words(await heard_again(client, speech.content, 24_000))
    assert "saturday" in heard and {"10", "ten"} & set(heard) and {"2", "two"} & set(heard)


# --- what it can't do --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        ("chat/completions", "not json", None, "not JSON"),
        ("chat/completions", "[" * 100_000, None, "not JSON"),
        ("chat/completions", "[1]", None, "not a JSON object"),
        ("chat/completions", "{}", "messages", "at least one message"),
        ("chat/completions", '{"messages": []}', "messages", "at least one message"),
        ("chat/completions", '{"messages": ["hello"]}', "messages", "a role"),
        ("audio/speech", "{}", "input", "input must be"),
        ("audio/speech", json.dumps({"input": "a" * 4097}), "input", "4096"),
        ("audio/speech", '{"input": "日本語 …"}', "input", "nothing that can be spoken"),
        ("audio/speech", '{"input": ""}', "input", "nothing that can be spoken"),
        ("audio/speech", '{"input": "Hi", "response_format": "mp3"}', "response_format", "pcm or wav"),
        ("audio/speech", '{"input": "Hi", "speed": 9}', "speed", "0.25 to 4"),
        ("audio/speech", '{"input": "Hi", "speed": "fast"}', "speed", "0.25 to 4"),
        ("audio/transcriptions", "{}", None, "multipart/form-data"),
    ],
)
async def test_bad_requests_are_refused_in_openais_form(
    http: aiohttp.ClientSession, path: str, body: str, param: str | None, said: str
) -> None:
    async with http.post(path, data=body, headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert said in error.pop("message")
    assert error == {"type": "invalid_request_error", "param": param, "code": None}


async def test_a_body_in_an_unknown_encoding_is_refused(http: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "application/json; charset=nonsense"}
    async with http.post("chat/completions", data="{}", headers=headers) as response:
        assert response.status == 400 and "not JSON" in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: text/plain; charset=nonsense",
        "Content-Transfer-Encoding: nonsense",
        "Content-Encoding: nonsense",
        "no header",
    ],
)
async def test_a_form_that_can_not_be_read_is_refused(http: aiohttp.ClientSession, head: str) -> None:
    form = f'--b\r\nContent-Disposition: form-data; name="model"\r\n{head}\r\n\r\nm\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with http.post("audio/transcriptions", data=form, headers=headers) as response:
        assert response.status == 400


@pytest.mark.parametrize("model", ["m", "\ud800"])
async def test_half_a_character_does_not_break_off_a_stream(http: aiohttp.ClientSession, model: str) -> None:
    """Without facts the question is said again."""
    asked = {"model": model, "messages": [{"role": "user", "content": "zebra \ud800"}], "stream": True}
    async with http.post("chat/completions", json=asked) as response:
        events = (await response.read()).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert all(json.loads(event[6:])["model"] == model for event in events[:-2])


def upload(content: bytes = wav(bytes(8000))[1], **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(fields)
    form.add_field("file", io.BytesIO(content), filename="turn.wav", content_type="audio/wav")
    return form


@pytest.mark.parametrize(
    ("form", "param", "said"),
    [
        (aiohttp.FormData({"model": "whisper-1"}, default_to_multipart=True), "file", "missing"),
        (upload(b"ID3 not a wav"), "file", "Supported formats: ['wav']"),
        (upload(wav(bytes(100))[1]), "file", "too short"),
        (upload(response_format="srt"), "response_format", "json, text or verbose_json"),
        (upload(language="klingon"), "language", "klingon"),
    ],
)
async def test_bad_uploads_are_refused_in_openais_form(
    http: aiohttp.ClientSession, form: aiohttp.FormData, param: str, said: str
) -> None:
    async with http.post("audio/transcriptions", data=form) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["param"] == param
    assert said in error["message"]


async def test_an_upload_beyond_25_mb_is_refused(http: aiohttp.ClientSession) -> None:
    with contextlib.suppress(aiohttp.ClientConnectionError):  # the server need not read it to its end
        async with http.post("audio/transcriptions", data=upload(bytes(26 * 2**20))) as response:
            assert response.status == 413
            assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_unknown_paths_and_methods_answer_in_openais_form(http: aiohttp.ClientSession) -> None:
    async with http.post("images/generations", json={}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["message"]
    async with http.get("audio/speech") as response:
        assert response.status == 405


async def test_unknown_fields_are_ignored(http: aiohttp.ClientSession) -> None:
    body: dict[str, Any] = {"messages": MESSAGES, "verbosity": "low", "stream_options": 5, "tools": None}
    async with http.post("chat/completions", json=body) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == SATURDAY


async def test_a_taken_port_is_one_sentence(base_url: str) -> None:
    port = int(base_url.split(":")[2].split("/")[0])
    with pytest.raises(SetupError, match=rf"port {port}.*--port"):
        async with server.running("127.0.0.1", port):
            pass

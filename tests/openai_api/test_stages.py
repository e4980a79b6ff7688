"""The three adapters through the real SDK against a strict server on loopback."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import re
import struct
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ari_app.dialog.known_speech import rendered
from ari_app.dialog.ports import EngineUsed, Message, Transcript
from ari_app.dialog.usage import Bill
from ari_app.errors import EngineError, EngineRejected, EngineTimeout, EngineUnreachable
from ari_app.openai_api import bounds, client
from ari_app.openai_api.chat import OpenAiChat
from ari_app.openai_api.client import StageSettings
from ari_app.openai_api.stt import OpenAiSpeechToText, wav_file
from ari_app.openai_api.tts import OpenAiTextToSpeech, SpeechBody
from tests.fakes.openai_server import FakeOpenAI, Reply, chat, error, fake_openai, speech, transcript

KEY = "sk-very-secret"
ASKED = [Message("system", "Be brief."), Message("user", "Hello?")]
TONE = struct.pack("<4000h", *(int(8000 * math.sin(n / 4)) for n in range(4000)))


@pytest.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with fake_openai(KEY) as server:
        yield server


def settings(server: FakeOpenAI, read_timeout_s: float = 5.0) -> StageSettings:
    return StageSettings(server.url, "some-model", KEY, read_timeout_s)


async def transcribe(server: FakeOpenAI, read_timeout_s: float = 5.0) -> Transcript:
    stage = OpenAiSpeechToText(settings(server, read_timeout_s))
    try:
        return await stage.transcribe(TONE, 8000)
    finally:
        await stage.close()


async def ask(server: FakeOpenAI, read_timeout_s: float = 5.0) -> str:
    stage = OpenAiChat(settings(server, read_timeout_s))
    try:
        return "".join([delta async for delta in stage.reply(ASKED)])
    finally:
        await stage.close()


async def speak(
    server: FakeOpenAI, read_timeout_s: float = 5.0, rate_hz: int = 24_000
) -> tuple[bytes, set[int]]:
    stage = OpenAiTextToSpeech(settings(server, read_timeout_s), voice="alloy", rate_hz=rate_hz)
    try:
        chunks = [chunk async for chunk in stage.speak("Hello there.")]
        assert all(len(chunk.pcm) % 2 == 0 and chunk.pcm for chunk in chunks)
        return b"".join(chunk.pcm for chunk in chunks), {chunk.rate_hz for chunk in chunks}
    finally:
        await stage.close()


# --- speech-to-text ----------------------------------------------------------------------------------


async def test_stt_uploads_a_16_khz_wav(server: FakeOpenAI) -> None:
    server.stt.append(transcript(" Hello there. ", usage={"type": "duration", "seconds": 1}))
    assert await transcribe(server) == Transcript("Hello there.", None)
    (request,) = server.requests
    assert request.fields == {
        "file": "audio/wav",
        "model": "some-model",
        "response_format": "json",
        "temperature": "0",
    }
    assert request.file_name == "turn.wav"
    with wave.open(io.BytesIO(request.file)) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (16_000, 1, 2)
        assert wav.getnframes() == pytest.approx(2 * 4000, abs=200)
        samples = struct.unpack(f"<{wav.getnframes()}h", wav.readframes(wav.getnframes()))
    assert 7000 < max(samples) < 9000


def test_the_wav_header_is_what_the_standard_library_reads() -> None:
    with wave.open(io.BytesIO(wav_file(TONE, 8000))) as wav:
        assert wav.getparams()[:4] == (1, 2, 8000, 4000)
        assert wav.readframes(4000) == TONE


@pytest.mark.parametrize(
    ("languages", "field", "sent"),
    [
        ((), "language", {}),
        (("es",), "language", {"language": "es"}),
        (("en", "es"), "language", {}),
        (("es",), "languages", {"languages[]": "es"}),
    ],
)
async def test_stt_language_hint(
    server: FakeOpenAI, languages: tuple[str, ...], field: str, sent: object
) -> None:
    server.stt.append(transcript("Hola", languages=[{"code": "es"}]))
    stage = OpenAiSpeechToText(settings(server), languages=languages, language_field=field)  # type: ignore[arg-type]
    assert await stage.transcribe(TONE, 8000) == Transcript("Hola", "es")
    await stage.close()
    hints = {name: value for name, value in server.requests[0].fields.items() if name.startswith("lang")}
    assert hints == sent


async def test_stt_language_of_a_local_server(server: FakeOpenAI) -> None:
    server.stt += [transcript("Hola", language="es"), transcript("Hola", language="spanish")]
    assert (await transcribe(server)).language == "es"
    assert (await transcribe(server)).language is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"text": 5}', b"<html>", b""])
async def test_stt_nonsense_is_an_engine_error(server: FakeOpenAI, body: bytes) -> None:
    server.stt.append(Reply([body]))
    with pytest.raises(EngineError):
        await transcribe(server)


# --- chat --------------------------------------------------------------------------------------------


async def test_chat_streams_deltas_as_they_come(server: FakeOpenAI) -> None:
    server.chat.append(chat("Hel", "lo", " there.", hang=True, done=False))
    stage = OpenAiChat(settings(server), max_tokens=77)
    reply = stage.reply(ASKED)
    assert [await anext(reply) for _ in range(3)] == ["Hel", "lo", " there."]
    await reply.aclose()
    await stage.close()
    (request,) = server.requests
    assert request.fields == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 77,
    }


async def test_closing_the_reply_cancels_the_request(server: FakeOpenAI) -> None:
    server.chat.append(chat("Hello", done=False, hang=True))
    stage = OpenAiChat(settings(server))
    reply = stage.reply(ASKED)
    await anext(reply)
    await reply.aclose()
    for _ in range(100):
        if server.requests[0].cut_off:
            break
        await asyncio.sleep(0.01)
    assert server.requests[0].cut_off
    await stage.close()


async def test_chat_limit_field_and_extra_fields(server: FakeOpenAI) -> None:
    server.chat.append(chat("Hello"))
    stage = OpenAiChat(settings(server), limit_field="max_tokens", extra={"reasoning_effort": "none"})
    assert [delta async for delta in stage.reply(ASKED)] == ["Hello"]
    await stage.close()
    assert server.requests[0].fields["max_tokens"] == 500
    assert server.requests[0].fields["reasoning_effort"] == "none"
    assert server.faults == ["unexpected fields of /v1/chat/completions: ['reasoning_effort']"]
    server.faults.clear()


async def test_chat_split_inside_an_event_and_inside_a_character(server: FakeOpenAI) -> None:
    whole = b"".join(chat("¡Ho", "la! ", "¿Qué tal?").pieces)
    whole = whole.replace(b"\\u00a1", "¡".encode())
    pieces = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    server.chat.append(Reply(pieces, content_type="text/event-stream"))
    assert await ask(server) == "¡Hola! ¿Qué tal?"


async def test_an_error_event_in_the_stream(server: FakeOpenAI) -> None:
    good = chat("Hel", done=False).pieces
    event = b'data: {"error": {"message": "out of memory", "type": "server_error", "code": null}}\n\n'
    server.chat.append(Reply([*good, event], content_type="text/event-stream"))
    with pytest.raises(EngineError, match="chat: the server broke off: out of memory"):
        await ask(server)


async def test_garbage_in_the_stream(server: FakeOpenAI) -> None:
    server.chat.append(Reply([b"data: {nonsense\n\n"], content_type="text/event-stream"))
    with pytest.raises(EngineError, match="chat: unusable answer"):
        await ask(server)


# --- text-to-speech ----------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", [1, 333, 1999, 100_000])
async def test_tts_gives_whole_samples_of_odd_pieces(server: FakeOpenAI, piece_bytes: int) -> None:
    server.tts.append(speech(TONE[:2000], piece_bytes))
    assert await speak(server) == (TONE[:2000], {24_000})
    assert server.requests[0].fields == {
        "model": "some-model",
        "voice": "alloy",
        "input": "Hello there.",
        "response_format": "pcm",
    }


async def test_tts_gives_the_first_chunk_while_the_rest_is_made(server: FakeOpenAI) -> None:
    server.tts.append(speech(TONE[:400], hang=True))
    stage = OpenAiTextToSpeech(settings(server), voice="alloy")
    chunks = stage.speak("Hello there.")
    async with asyncio.timeout(5):
        assert (await anext(chunks)).pcm[:100] == TONE[:100]
    await chunks.aclose()
    await stage.close()


async def test_tts_believes_the_content_type_then_the_header_then_the_setting(server: FakeOpenAI) -> None:
    server.tts += [
        speech(TONE, content_type="audio/pcm;rate=16000"),
        speech(wav_file(TONE, 22_050), 5, content_type="audio/wav"),
        speech(TONE, content_type="application/octet-stream"),
    ]
    assert await speak(server) == (TONE, {16_000})
    assert await speak(server) == (TONE, {22_050})
    assert await speak(server, rate_hz=48_000) == (TONE, {48_000})


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b'{"detail": "x"}', "application/json", "application/json instead of audio"),
        (b"ID3\x04rest", "audio/mpeg", "MP3 instead of PCM"),
        (b"OggS....", "audio/ogg", "Ogg instead of PCM"),
        (wav_file(TONE, 8000)[:22] + b"\x02\x00" + wav_file(TONE, 8000)[24:], "audio/wav", "2 channels"),
        (b"RIFF" + bytes(8000), "audio/wav", "header has no end"),
    ],
)
async def test_tts_never_plays_what_is_not_pcm(
    server: FakeOpenAI, body: bytes, content_type: str, words: str
) -> None:
    server.tts.append(speech(body, content_type=content_type))
    with pytest.raises(EngineError, match=words):
        await speak(server)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40)), st.booleans())
def test_the_body_is_the_same_however_it_is_cut(pcm: bytes, cuts: list[int], wav: bool) -> None:
    pcm = b"\x00\x00" + pcm + b"\x00\x00"
    data = wav_file(pcm, 16_000) if wav else pcm
    body = SpeechBody("audio/pcm", 24_000)
    out = b""
    for cut in [*cuts, len(data)]:
        out += body.push(data[:cut])
        data = data[cut:]
    assert out == pcm[: len(pcm) // 2 * 2]
    assert body.rate_hz == (16_000 if wav else 24_000)


# --- what they took ----------------------------------------------------------------------------------


@pytest.fixture
def used() -> list[EngineUsed]:
    """What is entered for the call that the test is."""
    entered: list[EngineUsed] = []
    Bill().charge(1, entered.append)
    return entered


def chat_with(usage: object) -> Reply:
    """An answer whose server counted that."""
    whole = [piece for piece in chat("Hello").pieces if b'"usage"' not in piece]
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    event = f"data: {json.dumps({**chunk, 'usage': usage})}\n\n".encode()
    return Reply([*whole[:-1], event, whole[-1]], content_type="text/event-stream")


@pytest.mark.parametrize(
    ("usage", "amounts"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 7,
                "total_tokens": 107,
                "prompt_tokens_details": {"cached_tokens": 64},
            },
            {"text_in": 36, "text_in_cached": 64, "text_out": 7},
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5}, {"text_in": 9, "text_in_cached": 0, "text_out": 5}),
        (
            {"prompt_tokens": "many", "completion_tokens": -1},
            {"text_in": 0, "text_in_cached": 0, "text_out": 0},
        ),
        (None, {"uncounted": 1}),
    ],
)
async def test_chat_tells_its_tokens(
    server: FakeOpenAI, used: list[EngineUsed], usage: object, amounts: dict[str, int]
) -> None:
    server.chat.append(chat_with(usage))
    assert await ask(server) == "Hello"
    assert [(u.stage, u.model, u.amounts) for u in used] == [("chat", "some-model", amounts)]


async def test_a_server_that_does_not_take_the_wish_to_count_is_not_asked_to_again(
    server: FakeOpenAI, used: list[EngineUsed]
) -> None:
    server.chat += [
        error(400, "Unrecognized request argument supplied: stream_options"),
        *[chat("Hello")] * 2,
    ]
    stage = OpenAiChat(settings(server))
    for _ in range(2):
        assert "".join([delta async for delta in stage.reply(ASKED)]) == "Hello"
    await stage.close()
    assert ["stream_options" in request.fields for request in server.requests] == [True, False, False]
    assert len(used) == 2, "what was refused is not entered"


async def test_a_server_that_counts_is_not_asked_twice_when_it_refuses(server: FakeOpenAI) -> None:
    server.chat += [chat("Hello"), error(422, "too long"), chat("Hello")]
    stage = OpenAiChat(settings(server))
    assert [delta async for delta in stage.reply(ASKED)] == ["Hello"]
    with pytest.raises(EngineRejected, match="too long"):
        await anext(stage.reply(ASKED))
    assert [delta async for delta in stage.reply(ASKED)] == ["Hello"]
    await stage.close()
    assert ["stream_options" in request.fields for request in server.requests] == [True] * 3


async def test_an_answer_that_nobody_wants_any_more_is_entered_as_not_counted(
    server: FakeOpenAI, used: list[EngineUsed]
) -> None:
    server.chat.append(chat("Hello", done=False, hang=True))
    stage = OpenAiChat(settings(server))
    reply = stage.reply(ASKED)
    await anext(reply)
    assert used == []
    await reply.aclose()
    await stage.close()
    assert [u.amounts for u in used] == [{"uncounted": 1}]


@pytest.mark.parametrize(
    ("usage", "amounts"),
    [
        ({"type": "duration", "seconds": 3}, {"audio_ms": 3000}),
        (
            {
                "type": "tokens",
                "input_tokens": 16,
                "output_tokens": 9,
                "total_tokens": 25,
                "input_token_details": {"audio_tokens": 14, "text_tokens": 2},
            },
            {"audio_ms": 500, "audio_in": 14, "text_in": 2, "text_out": 9},
        ),
        (None, {"audio_ms": 500}),
        ({"type": "duration", "seconds": "long"}, {"audio_ms": 500}),
    ],
)
async def test_stt_tells_tokens_or_the_length_of_the_sound(
    server: FakeOpenAI, used: list[EngineUsed], usage: object, amounts: dict[str, int]
) -> None:
    server.stt.append(transcript("Hello", **({"usage": usage} if usage else {})))
    await transcribe(server)
    assert [(u.stage, u.amounts) for u in used] == [("speech-to-text", amounts)]


async def test_stt_that_is_not_waited_for_was_sent_all_the_same(
    server: FakeOpenAI, used: list[EngineUsed]
) -> None:
    server.stt.append(transcript("Hello").delayed(30))
    task = asyncio.ensure_future(transcribe(server))
    while not server.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [u.amounts for u in used] == [{"audio_ms": 500}]


async def test_tts_tells_characters_and_the_length_of_what_was_spoken(
    server: FakeOpenAI, used: list[EngineUsed]
) -> None:
    server.tts += [speech(TONE), speech(TONE[:400], hang=True)]
    await speak(server)
    stage = OpenAiTextToSpeech(settings(server), voice="alloy")
    chunks = stage.speak("Bye.")
    await anext(chunks)
    await chunks.aclose()
    await stage.close()
    # 4000 samples at 24 kHz
    assert [u.amounts for u in used] == [{"characters": 12, "audio_ms": 167}, {"characters": 4}]


# --- what all three share ----------------------------------------------------------------------------

Use = Callable[..., Awaitable[object]]
STAGES: list[tuple[str, Use]] = [
    ("stt", transcribe),
    ("chat", ask),
    ("tts", speak),
]


@pytest.mark.parametrize(("script", "use"), STAGES)
@pytest.mark.parametrize(
    ("reply", "permanent", "words"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), True, "the API key was refused"),
        (error(403, "no access"), True, "may not use model 'some-model'"),
        (error(404, "no such model", "model_not_found"), True, "knows no model 'some-model'"),
        (
            error(429, "slow down", "rate_limit_exceeded", **{"Retry-After": "120"}),
            False,
            "too many requests",
        ),
        (error(429, "no money", "insufficient_quota"), True, "no credit left"),
        (error(400, "bad voice"), False, "refused (HTTP 400): bad voice"),
        (error(400, f"key\n{KEY} sent"), False, "refused (HTTP 400): key *** sent"),
        (error(500, "oops"), False, "the server failed (HTTP 500)"),
        (Reply([b"<html>Bad gateway</html>"], 502, "text/html"), False, "the server failed (HTTP 502)"),
    ],
)
async def test_an_error_status_is_told_once_in_our_words(
    server: FakeOpenAI,
    script: str,
    use: Use,
    reply: Reply,
    permanent: bool,
    words: str,
) -> None:
    # Chat asks once more without the wish to be told what it took: that may have been what was refused.
    tries = 2 if script == "chat" and reply.status == 400 else 1
    getattr(server, script).extend([reply] * tries)
    with pytest.raises(EngineRejected) as caught:
        await use(server)
    assert words in str(caught.value)
    assert caught.value.permanent == permanent
    assert KEY not in str(caught.value) + repr(caught.value)
    assert len(server.requests) == tries, "a retry is the pipeline's to decide"


@pytest.mark.parametrize(("script", "use"), STAGES)
async def test_silence_and_a_stall_are_timeouts(server: FakeOpenAI, script: str, use: Use) -> None:
    stalled = {
        "stt": Reply([b'{"text"'], hang=True),
        "chat": chat("Hel", done=False, hang=True),
        "tts": speech(TONE, hang=True),
    }
    getattr(server, script).extend([Reply().delayed(30), stalled[script]])
    for _ in range(2):
        with pytest.raises(EngineTimeout, match="did not answer in time"):
            await use(server, read_timeout_s=0.2)


@pytest.mark.parametrize(("script", "use"), STAGES)
async def test_a_broken_connection(server: FakeOpenAI, script: str, use: Use) -> None:
    broken = {
        "stt": Reply([b'{"text"'], reset=True),
        "chat": chat("Hel", done=False, reset=True),
        "tts": speech(TONE, reset=True),
    }
    getattr(server, script).append(broken[script])
    with pytest.raises(EngineUnreachable, match="no connection to http://127"):
        await use(server)


async def test_nobody_there() -> None:
    stage = OpenAiChat(StageSettings("http://127.0.0.1:9/v1", "some-model", KEY))
    with pytest.raises(EngineUnreachable, match="chat: no connection to http://127.0.0.1:9/v1"):
        await anext(stage.reply(ASKED))
    await stage.close()
    await stage.close()


async def test_warming_opens_the_connection_that_is_used(server: FakeOpenAI) -> None:
    server.chat.append(chat("Hello"))
    stage = OpenAiChat(settings(server))
    await stage.warm()
    assert [delta async for delta in stage.reply(ASKED)] == ["Hello"]
    await stage.close()
    assert [r.path for r in server.requests] == ["/v1/models", "/v1/chat/completions"]
    assert len({r.port for r in server.requests}) == 1


async def test_a_server_without_a_key(server: FakeOpenAI) -> None:
    server.chat.append(chat("Hello"))
    stage = OpenAiChat(StageSettings(server.url, "some-model"))
    assert [delta async for delta in stage.reply(ASKED)] == ["Hello"]
    await stage.close()
    assert server.faults == ["wrong key for /v1/chat/completions"]
    server.faults.clear()


def test_settings_do_not_show_the_key() -> None:
    assert KEY not in repr(StageSettings("http://127.0.0.1/v1", "m", KEY))


# --- answers without measure -------------------------------------------------------------------------

MB = 2**20


def endless(piece: bytes, content_type: str = "application/json") -> Reply:
    """64 MB, in pieces."""
    return Reply([piece * (MB // len(piece))] * 64, content_type=content_type)


@pytest.mark.parametrize("script", ["stt", "chat", "tts"])
@pytest.mark.parametrize(
    ("status", "content_type"),
    [(200, "application/json"), (200, "text/event-stream"), (200, "audio/pcm"), (500, "application/json")],
)
async def test_an_answer_of_64_mb_is_not_read(
    server: FakeOpenAI, script: str, status: int, content_type: str
) -> None:
    use: Use = {"stt": transcribe, "chat": ask, "tts": speak}[script]
    getattr(server, script).append(replace(endless(b" 123", content_type), status=status))
    with pytest.raises(EngineError) as caught:
        await use(server)
    assert re.search("the server sent|unusable answer|the server failed", str(caught.value))
    for _ in range(100):
        if server.requests[0].cut_off:
            break
        await asyncio.sleep(0.01)
    assert server.requests[0].cut_off, "most of it never left the server"


async def test_an_answer_that_announces_64_mb_is_refused_at_once(server: FakeOpenAI) -> None:
    server.stt.append(Reply([b"{"], headers={"Content-Length": str(64 * MB)}, hang=True))
    with pytest.raises(EngineError, match="speech-to-text: the server wants to send 64 MiB"):
        await transcribe(server)


async def test_a_compressed_answer_is_refused(server: FakeOpenAI) -> None:
    """A thousandth of it would do to fill the memory."""
    bomb = gzip.compress(b'{"text": "' + b"a" * 10 * MB + b'"}')
    server.stt.append(Reply([bomb], headers={"Content-Encoding": "gzip"}))
    with pytest.raises(EngineError, match="compressed its answer"):
        await transcribe(server)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: ", *[b"x" * 1000] * 10_000],
        [b"data: x\n"] * 100_000,
        [b": nothing new\n" * 1000] * 100,
        [b'data: {"choices": [{"delta": {"content": "', b"x" * 10 * MB, b'"}}]}\n\n'],
    ],
)
async def test_an_event_without_end(server: FakeOpenAI, pieces: list[bytes]) -> None:
    server.chat.append(Reply(pieces, content_type="text/event-stream"))
    with pytest.raises(EngineError, match="chat: the server sent an event of more than 64 KiB"):
        await ask(server)


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\r", b"\r\n\r\n"])
@given(cut=st.integers(1, 60))
@hypothesis_settings(max_examples=20)
def test_many_events_are_not_one_wherever_they_are_cut(blank: bytes, cut: int) -> None:
    events = (b"data: 0123456789" + blank) * 8000

    async def read() -> bytes:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(events), 1000 + cut):
                yield events[start : start + 1000 + cut]

        response = httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=pieces())
        await bounds.bound(response)
        return await response.aread()

    assert asyncio.run(read()) == events


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"text":' * 100_000])
async def test_json_without_ground(server: FakeOpenAI, nested: str) -> None:
    server.stt.append(Reply([nested.encode()]))
    with pytest.raises(EngineError, match="speech-to-text: unusable answer"):
        await transcribe(server)
    server.chat.append(Reply([f"data: {nested[:60_000]}\n\n".encode()], content_type="text/event-stream"))
    with pytest.raises(EngineError, match="chat: unusable answer"):
        await ask(server)


SHAPELESS = [
    b'{"choices": null}',
    b'{"choices": 5, "usage": []}',
    b'{"choices": [null]}',
    b'{"choices": [{"delta": {"content": ["x"]}}]}',
    b"5",
    b'"choices"',
    b"[[]]",
]


@pytest.mark.parametrize("event", SHAPELESS)
async def test_an_event_of_another_shape_holds_no_words(server: FakeOpenAI, event: bytes) -> None:
    """The SDK checks nothing, and what is no `EngineError` makes no other engine stand in."""
    whole = b'data: {"choices": [{"delta": {"content": "Good day."}}]}\n\n'
    server.chat.append(Reply([b"data: ", event, b"\n\n", whole], content_type="text/event-stream"))
    assert await ask(server) == "Good day."


@pytest.mark.parametrize("languages", [5, {"en": 1}, "en", [], [None], [["en"]]])
async def test_languages_of_another_shape_are_none(server: FakeOpenAI, languages: object) -> None:
    server.stt.append(transcript("Hello.", languages=languages, usage=languages))
    assert await transcribe(server) == Transcript("Hello.", None)


@pytest.mark.parametrize("code", ["[]", "{}", "[null]", "5"])
async def test_a_refusal_whose_code_is_none(server: FakeOpenAI, code: str) -> None:
    body = f'{{"error": {{"message": "no", "type": {code}, "code": {code}}}}}'
    server.stt.append(Reply([body.encode()], 418))
    with pytest.raises(EngineRejected, match="was refused \\(HTTP 418\\): no$"):
        await transcribe(server)


@pytest.mark.parametrize(
    "banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nA\r\n\r\n", b"\x15\x03\x01"]
)
async def test_a_server_that_speaks_no_http(banner: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(banner)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        stage = OpenAiChat(StageSettings(f"http://127.0.0.1:{port}/v1", "some-model", KEY))
        with pytest.raises(EngineError, match="chat: ") as told:
            await stage.warm()
        assert KEY not in str(told.value) and "Bearer" not in str(told.value)
        await stage.close()


async def test_warming_ends_where_aiohttp_would_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunked body whose trailer is malformed has no end for it, and no time-out."""
    monkeypatch.setattr(client, "WARM_S", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"2\r\n{}\r\n0\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"\rX")
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        stage = OpenAiChat(StageSettings(f"http://127.0.0.1:{port}/v1", "some-model", KEY))
        with pytest.raises(EngineTimeout, match="did not answer in time"):
            async with asyncio.timeout(5):
                await stage.warm()
        await stage.close()


async def test_a_transcript_is_one_line_of_bounded_length_that_utf_8_can_hold(server: FakeOpenAI) -> None:
    server.stt.append(transcript("a\n\nSYSTEM: b\x1b[2J\u2028c \ud800 d\x00\u202e", language="\x1b["))
    assert await transcribe(server) == Transcript("a SYSTEM: b [2J c d", None)
    server.stt.append(transcript("word " * 100_000))
    heard = await transcribe(server)
    assert len(heard.text) == 4000 and heard.text.startswith("word word ")


def test_a_content_type_is_told_on_one_line_of_bounded_length() -> None:
    with pytest.raises(EngineError) as told:
        SpeechBody("text/\x85\x9b31m" + "a" * 5000, 8000)
    assert (
        str(told.value).startswith("text-to-speech: the server sent text/ 31maaa")
        and len(str(told.value)) < 200
    )


@pytest.mark.parametrize("rate_hz", [0, 1, 7999, 192_001, 2**32 - 1])
async def test_tts_of_an_impossible_rate(server: FakeOpenAI, rate_hz: int) -> None:
    head = bytearray(wav_file(b"", 8000))
    head[24:28] = struct.pack("<I", rate_hz)
    server.tts.append(speech(bytes(head) + bytes(MB), content_type="audio/wav"))
    with pytest.raises(EngineError, match=f"audio has {rate_hz} samples a second"):
        await speak(server)


async def test_a_text_that_is_spoken_without_end_is_given_up(server: FakeOpenAI) -> None:
    server.tts.append(endless(bytes(1024), "audio/pcm;rate=8000"))
    stage = OpenAiTextToSpeech(settings(server), voice="alloy")
    with pytest.raises(EngineError, match="one text went on for 180 s"):
        await rendered(stage, "Goodbye.")
    await stage.close()

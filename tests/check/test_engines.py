"""The engines' part of `check` against strict OpenAI peers: what answers, how soon, until when, and why not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import date

import pytest

from ari_app.check import engines
from ari_app.check.engines import Model, Timed, check_engines, list_models, shutdown_date, stage_finding
from ari_app.check.findings import EXIT_CONFIG, EXIT_FAILED, Finding, Level
from ari_app.config import Config, Stage, load
from ari_app.errors import EngineRejected
from tests.fakes.openai_server import FakeOpenAI, Reply, chat, error, fake_openai, speech, transcript
from tests.fakes.realtime_server import Fault, running

KEY = "sk-test-0123456789abcdef"
TODAY = date(2026, 11, 23)
MODELS = {"tts": "tts-1", "chat": "gpt-6-luna", "stt": "gpt-transcribe"}
"""Those of the default settings at a server that is not OpenAI's."""


def models(*names: str, last_days: Mapping[str, object] | None = None) -> Reply:
    """The answer of GET /models."""
    usual = {"object": "model", "created": 1, "owned_by": "x"}
    listed = [{"id": name, **usual} for name in names]
    listed += [{"id": name, **usual, "shutdown_date": day} for name, day in (last_days or {}).items()]
    return Reply([json.dumps({"object": "list", "data": listed}).encode()])


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    """A server where all is well."""
    async with fake_openai(KEY) as fake:
        fake.routine["/v1/audio/speech"] = speech(b"\0\x10" * 4800)
        fake.routine["/v1/chat/completions"] = chat("Yes.")
        fake.routine["/v1/audio/transcriptions"] = transcript("This is a test of the telephone.")
        fake.routine["/v1/models"] = models(*MODELS.values())
        yield fake


def config(openai: FakeOpenAI, **settings: str) -> Config:
    return load({}, {"OPENAI_BASE_URL": openai.url, "OPENAI_API_KEY": KEY, **settings}, {})


async def look(config: Config) -> dict[str, Finding]:
    return {f.subject: f for f in await check_engines(config, config.stages(""), config.fallbacks(""), TODAY)}


# --- all is well -------------------------------------------------------------------------------------


async def test_every_stage_is_asked_and_timed(openai: FakeOpenAI) -> None:
    found = await look(config(openai))
    assert list(found) == ["speech-to-text", "chat", "text-to-speech"]
    assert {f.level for f in found.values()} == {Level.OK}
    server = openai.url.removeprefix("http://").removesuffix("/v1")
    assert found["chat"].text.startswith(f"gpt-6-luna at {server}: first word after ")
    assert found["text-to-speech"].figures["model"] == "tts-1"
    assert isinstance(found["speech-to-text"].figures["latency_ms"], int)
    (asked,) = openai.sent("/v1/audio/transcriptions")
    assert len(asked.file) > 4800, "speech-to-text hears what text-to-speech said"
    assert len(openai.sent("/v1/models")) == 1, "one list per server"


async def test_a_server_without_a_list_of_models_may_still_be_used(openai: FakeOpenAI) -> None:
    for unusable in (error(404), Reply([b"[]"]), Reply([b'{"data":null}']), Reply([b"<html>"])):
        openai.routine["/v1/models"] = unusable
        assert await list_models(config(openai).stages("")["chat"]) is None
    assert {f.level for f in (await look(config(openai))).values()} == {Level.OK}


async def test_a_model_that_answers_need_not_be_on_the_list(openai: FakeOpenAI) -> None:
    openai.routine["/v1/models"] = models("something-else")
    assert {f.level for f in (await look(config(openai))).values()} == {Level.OK}


# --- how soon ----------------------------------------------------------------------------------------


async def test_a_slow_stage(openai: FakeOpenAI) -> None:
    openai.routine["/v1/chat/completions"] = chat("Yes.").delayed(2.6)
    found = await look(config(openai))
    assert found["chat"].level is Level.WARNING
    assert "faster model" in found["chat"].remedy
    assert found["speech-to-text"].level is found["text-to-speech"].level is Level.OK


async def test_a_stage_that_never_answers(openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TIMEOUT_S", 0.3)
    openai.routine["/v1/audio/transcriptions"] = Reply(hang=True)
    finding = (await look(config(openai)))["speech-to-text"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_FAILED)
    assert "no answer within 0.3 s" in finding.text and "OPENAI_STT_BASE_URL" in finding.remedy


async def test_an_empty_answer(openai: FakeOpenAI) -> None:
    openai.routine["/v1/chat/completions"] = chat()
    finding = (await look(config(openai)))["chat"]
    assert finding.level is Level.FAILED and "empty" in finding.text


async def test_nobody_is_there() -> None:
    found = await look(load({}, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, {}))
    assert {(f.level, f.exit_code) for f in found.values()} == {(Level.FAILED, EXIT_FAILED)}
    for finding in found.values():
        assert "no connection to http://127.0.0.1:9/v1" in finding.text
        assert "OPENAI_BASE_URL" in finding.remedy and "network" in finding.remedy


# --- why not -----------------------------------------------------------------------------------------


async def test_a_wrong_key(openai: FakeOpenAI) -> None:
    openai.routine["/v1/audio/speech"] = error(401, f"Incorrect API key provided: {KEY}")
    openai.routine["/v1/models"] = error(401)
    finding = (await look(config(openai)))["text-to-speech"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_CONFIG)
    assert "key was refused" in finding.text and KEY not in finding.text + finding.remedy
    assert "OPENAI_API_KEY" in finding.remedy and "OPENAI_TTS_API_KEY" in finding.remedy


async def test_a_key_without_the_right_to_a_model(openai: FakeOpenAI) -> None:
    openai.routine["/v1/chat/completions"] = error(403)
    finding = (await look(config(openai)))["chat"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_CONFIG)
    assert "may not use model 'gpt-6-luna'" in finding.text and "rights" in finding.remedy


async def test_an_unknown_model(openai: FakeOpenAI) -> None:
    openai.routine["/v1/chat/completions"] = error(404, code="model_not_found")
    finding = (await look(config(openai, OPENAI_MODEL="gpt-6-lunar")))["chat"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_CONFIG)
    assert "no model 'gpt-6-lunar'" in finding.text
    assert finding.remedy == "set OPENAI_MODEL to a model that this server has"


async def test_an_unknown_model_that_a_server_refuses_in_other_words(openai: FakeOpenAI) -> None:
    openai.routine["/v1/audio/speech"] = error(400, "bad request")
    finding = (await look(config(openai, OPENAI_TTS_MODEL="tts-9")))["text-to-speech"]
    assert finding.remedy == "set OPENAI_TTS_MODEL to a model that this server has"


async def test_no_credit(openai: FakeOpenAI) -> None:
    openai.routine["/v1/chat/completions"] = error(429, code="insufficient_quota")
    finding = (await look(config(openai)))["chat"]
    assert finding.level is Level.FAILED
    assert "no credit left" in finding.text and "account" in finding.remedy
    assert "gpt-6-luna at 127.0.0.1" in finding.text, "whose account"


@pytest.mark.parametrize(("status", "said"), [(429, "too many requests"), (503, "HTTP 503")])
async def test_trouble_that_passes(openai: FakeOpenAI, status: int, said: str) -> None:
    openai.routine["/v1/audio/transcriptions"] = error(status)
    finding = (await look(config(openai)))["speech-to-text"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_FAILED)
    assert said in finding.text and "try again" in finding.remedy


async def test_text_to_speech_that_fails_leaves_the_others_their_test(openai: FakeOpenAI) -> None:
    openai.routine["/v1/audio/speech"] = error(500)
    found = await look(config(openai))
    assert found["text-to-speech"].level is Level.FAILED
    assert found["speech-to-text"].level is found["chat"].level is Level.OK


# --- until when --------------------------------------------------------------------------------------


async def test_a_server_that_tells_a_model_s_last_day(openai: FakeOpenAI) -> None:
    days = {"gpt-6-luna": "2027-01-14", "gpt-transcribe": 1767225600}
    openai.routine["/v1/models"] = models("tts-1", last_days=days)
    found = await look(config(openai))
    assert found["chat"].level is Level.WARNING
    assert "the model is shut down on 2027-01-14" in found["chat"].text
    assert found["chat"].figures["shutdown_date"] == "2027-01-14"
    assert "was to be shut down on 2026-01-01" in found["speech-to-text"].text
    assert found["text-to-speech"].level is Level.OK


OPENAI = "https://api.openai.com/v1"


def test_a_retired_model_of_openai_names_its_successor() -> None:
    finding = stage_finding("chat", Stage(OPENAI, KEY, "gpt-4o"), Timed("first word", 300), None, TODAY)
    assert finding.level is Level.WARNING
    assert "is shut down on 2027-01-14" in finding.text and finding.remedy == "set OPENAI_MODEL=gpt-6-luna"
    elsewhere = Stage("http://127.0.0.1:1/v1", KEY, "gpt-4o")
    assert stage_finding("chat", elsewhere, Timed("first word", 300), None, TODAY).level is Level.OK


def test_a_model_that_is_gone_says_since_when_and_names_its_successor() -> None:
    gone = EngineRejected("chat", f"{OPENAI} knows no model 'gpt-4o'", permanent=True, status=404)
    later = date(2027, 3, 1)
    finding = stage_finding("chat", Stage(OPENAI, KEY, "gpt-4o"), Timed(error=gone), {"x": Model()}, later)
    assert finding.level is Level.FAILED
    assert "last day: 2027-01-14" in finding.text and finding.remedy == "set OPENAI_MODEL to gpt-6-luna"


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("2027-01-14", date(2027, 1, 14)),
        ("2027-01-14T00:00:00Z", date(2027, 1, 14)),
        (1767225600, date(2026, 1, 1)),
        (None, None),
        (True, None),
        ("soon", None),
        (10**20, None),
        ([], None),
    ],
)
def test_last_days_as_servers_write_them(value: object, day: date | None) -> None:
    assert shutdown_date(value) == day


# --- Realtime ----------------------------------------------------------------------------------------


def realtime(url: str, key: str = KEY) -> Config:
    return load({}, {"MODE": "realtime", "OPENAI_BASE_URL": url, "OPENAI_API_KEY": key}, {})


async def test_a_realtime_session_is_opened_and_timed() -> None:
    async with running(KEY) as fake:
        found = await look(realtime(fake.url))
        assert fake.faults == ["handshake: unknown path /v1/models"], "it has no list, and need not have one"
    assert found["realtime"].level is Level.OK
    assert found["realtime"].text.startswith("gpt-realtime-2.1 at 127.0.0.1")
    assert not fake.received("response.create"), "it costs nothing"


@pytest.mark.parametrize(
    ("fault", "code", "said", "remedy"),
    [
        (Fault(status=401), EXIT_CONFIG, "key was refused", "OPENAI_RT_API_KEY"),
        (Fault(status=404), EXIT_CONFIG, "no model 'gpt-realtime-2.1'", "OPENAI_RT_MODEL"),
        (Fault(status=429), EXIT_FAILED, "too many sessions", "try again"),
        (Fault(input_format="audio/pcma"), EXIT_CONFIG, "OPENAI_RT_AUDIO", "OPENAI_RT_MODEL"),
        (Fault(no_handshake=True), EXIT_FAILED, "no answer within", "OPENAI_RT_BASE_URL"),
        (Fault(never_updated=True), EXIT_FAILED, "no answer within", "OPENAI_RT_BASE_URL"),
    ],
)
async def test_a_realtime_session_that_can_not_be_had(
    fault: Fault, code: int, said: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "TIMEOUT_S", 0.5)
    async with running(KEY) as fake:
        fake.misbehave = [fault]
        finding = (await look(realtime(fake.url)))["realtime"]
    assert (finding.level, finding.exit_code) == (Level.FAILED, code)
    assert said in finding.text and remedy in finding.remedy


async def test_an_engine_that_stands_in_is_checked_too(openai: FakeOpenAI) -> None:
    async with fake_openai("other-key") as other:
        other.routine["/v1/chat/completions"] = error(401)
        other.routine["/v1/models"] = models()
        found = await look(
            config(
                openai,
                OPENAI_CHAT_FALLBACK_BASE_URL=other.url,
                OPENAI_CHAT_FALLBACK_API_KEY="other-key",
                OPENAI_CHAT_FALLBACK_MODEL="small-one",
            )
        )
        (asked,) = other.sent("/v1/chat/completions")
    assert asked.fields["model"] == "small-one"
    assert list(found) == ["speech-to-text", "chat", "text-to-speech", "chat, fallback"]
    assert found["chat"].level is Level.OK and found["chat, fallback"].level is Level.FAILED
    assert "OPENAI_CHAT_FALLBACK_API_KEY" in (found["chat, fallback"].remedy or "")

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ari_app.config import (
    OPENAI_URL,
    Config,
    load,
    require_ari,
    require_keys,
    secret_paths,
    unknown_names,
)
from ari_app.errors import ConfigError
from ari_app.models import RETIREMENTS
from ari_app.parsers import parse_dotenv
from ari_app.settings import SETTINGS, secret_files, settings_table

OFFLINE = "http://127.0.0.1:9/v1"


def config(**env: str) -> Config:
    return load({}, env, {})


def test_every_setting_has_a_field_and_every_field_a_setting() -> None:
    assert {s.key for s in SETTINGS} == {f.name for f in dataclasses.fields(Config)} - {"prices"}
    assert len({s.flag for s in SETTINGS if s.flag}) == len([s for s in SETTINGS if s.flag])


def test_defaults_are_the_documented_ones() -> None:
    defaults = config()
    assert defaults.silence_duration_ms == 1000
    assert defaults.vad_threshold_dbfs == -40
    assert defaults.openai_tts_voice == "alloy"
    assert defaults.mode == "pipeline"
    assert "English or Spanish" in defaults.system_message


def test_precedence_is_flag_then_environment_then_dotenv_then_default() -> None:
    layers = [{"OPENAI_MODEL": "flag"}, {"OPENAI_MODEL": "env"}, {"OPENAI_MODEL": "file"}]
    assert load(*layers).openai_model == "flag"
    assert load({}, *layers[1:]).openai_model == "env"
    assert load({}, {}, layers[2]).openai_model == "file"
    assert load({}, {"OPENAI_MODEL": ""}, layers[2]).openai_model == "file"
    assert load({"OPENAI_MODEL": None}, {}, {}).openai_model == "gpt-6-luna"


@pytest.mark.parametrize(
    ("ports", "calls"),
    [
        ("10000-10199", 20),
        ("10000-10039", 8),
        ("10000-10010", 2),
        ("10000-10001", 1),
        ("many", 20),
        ("", 20),
    ],
)
def test_calls_that_are_not_limited_are_as_many_as_asterisk_has_ports_for(ports: str, calls: int) -> None:
    assert config(SIP_RTP_PORTS=ports).max_calls == calls
    assert load({}, {}, {"SIP_RTP_PORTS": ports}).max_calls == calls
    assert config(SIP_RTP_PORTS=ports, MAX_CALLS="7").max_calls == min(7, calls)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("SILENCE_DURATION_MS", "soon", "whole number from 200 to 5000 (ms)"),
        ("SILENCE_DURATION_MS", "100", "whole number from 200 to 5000 (ms)"),
        ("SAVE_RECORDINGS", "perhaps", "yes or no"),
        ("MODE", "telepathy", "one of pipeline, realtime, echo"),
        ("ARI_URL", "localhost:8088", "http:// or https://"),
        ("ARI_URL", "http://user:word@localhost:8088", "without user name"),
        ("ARI_URL", "http://127.0.0.1:99999", "port from 1 to 65535"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:70000/v1", "port from 1 to 65535"),
        ("RTP_HOST", "localhost", "IP address"),
        ("RTP_HOST", "0.0.0.0", "one interface, since Asterisk sends to it, or auto"),
        ("LANGUAGE", "english", "two letters"),
        ("RTP_PORTS", "4000", "40000-40999"),
        ("RTP_PORTS", "5000-4000", "lower one first"),
        ("DIAL_ENDPOINT", "PJSIP/trunk", "{number}"),
        ("DIAL_ENDPOINT", "PJSIP/{number}@a&PJSIP/900@b", "{number}"),
        ("ARI_APP", "my app", "letters"),
        ("CALLER_ID", "a\nb", "one line"),
        ("VAD_THRESHOLD", "1.5", "number from 0 to 1"),
        ("OPENAI_RT_IDLE_TIMEOUT_MS", "900", "5000 to 30000 (ms), or 0"),
        ("OPENAI_RT_TRUNCATION", "half", "or one of auto, disabled"),
        ("OPENAI_RT_AUDIO", "opus", "one of pcm, pcmu"),
    ],
)
def test_a_bad_value_names_the_setting_and_the_remedy(name: str, value: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{name: value})
    assert name in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("DIAL_ALLOW", "+44, office", "beginnings of numbers such as +44,+4930, which 'office' is not"),
        ("DIAL_DENY", "+", "beginnings of numbers"),
        ("COUNTRY_CODE", "+44", "a country's code without +, such as 44"),
        ("COUNTRY_CODE", "4", "a country's code"),
        ("COUNTRY_CODE", "881", "a country's code"),
        ("WEB_HOST", "localhost", "IP address"),
        ("API_TOKEN", "short", "16 characters"),
        ("API_TOKEN", "sixteen characters", "without spaces"),
        ("LOG_FORMAT", "xml", "one of auto, text, json"),
        ("HANDOVER_KEYS", "zero", "keys of a telephone: 0 to 9, * and #"),
    ],
)
def test_a_bad_value_for_operation_names_the_setting_and_the_remedy(
    name: str, value: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{name: value})
    assert name in str(caught.value)
    assert remedy in str(caught.value)


def test_a_secret_may_stand_in_a_file() -> None:
    env, dotenv = {"ARI_PASSWORD_FILE": "/run/a"}, {"OPENAI_API_KEY_FILE": "b", "ARI_APP_FILE": "c"}
    assert secret_paths(env, dotenv) == {"ARI_PASSWORD": "/run/a", "OPENAI_API_KEY": "b"}
    assert secret_paths({"ARI_PASSWORD_FILE": ""}, {}) == {}
    loaded = load({}, env, dotenv, {"ARI_PASSWORD": "word", "OPENAI_API_KEY": "sk-1"})
    assert (loaded.ari_password, loaded.openai_api_key) == ("word", "sk-1")
    assert "sk-1" not in repr(loaded)


def test_a_secret_and_its_file_at_once_are_a_fault() -> None:
    with pytest.raises(ConfigError, match="ARI_PASSWORD and ARI_PASSWORD_FILE are both set") as caught:
        load({}, {}, {"ARI_PASSWORD": "old"}, {"ARI_PASSWORD": "new"})
    assert "old" not in str(caught.value) and "new" not in str(caught.value)


def test_an_unknown_name_in_the_env_file_is_named_with_the_nearest_known_one() -> None:
    (typo, far) = unknown_names(["ARI_PASSWRD", "ARI_URL", "XYZZY", "OPENAI_API_KEY_FILE", "SIP_DOMAIN"])
    assert typo == "ARI_PASSWRD in .env is no setting: did you mean ARI_PASSWORD?"
    assert far.startswith("XYZZY in .env is no setting")
    near = unknown_names(
        [], ["SILENCE_DURATON_MS", "SIP_DOMIAN", "OPENAI_ORG_ID", "PYTHONPATH", "SIP_DOMAIN", "PWD"]
    )
    assert near == [
        "SILENCE_DURATON_MS in the environment is no setting: did you mean SILENCE_DURATION_MS?",
        "SIP_DOMIAN in the environment is no setting: did you mean SIP_DOMAIN?",
    ]
    assert unknown_names(["COMPOSE_PROFILES", "TZ", "openai_model"]) == [
        "openai_model in .env is no setting: did you mean OPENAI_MODEL?"
    ]


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config(MODE="x", MAX_CALLS="0")
    assert "MODE" in str(caught.value) and "MAX_CALLS" in str(caught.value)


def test_without_key_and_server_all_stages_use_the_offline_backend() -> None:
    plain = config()
    assert plain.needs_offline_backend
    assert {stage.base_url for stage in plain.stages(OFFLINE).values()} == {OFFLINE}
    assert plain.warnings() == []


def test_a_key_selects_openai_and_a_base_url_selects_that_server() -> None:
    keyed = config(OPENAI_API_KEY="sk-1")
    assert not keyed.needs_offline_backend
    assert {stage.base_url for stage in keyed.stages("").values()} == {OPENAI_URL}
    local = config(OPENAI_BASE_URL="http://gpu:8000/v1/")
    assert {stage.base_url for stage in local.stages("").values()} == {"http://gpu:8000/v1"}


def test_the_common_key_is_not_sent_to_a_stage_with_a_server_of_its_own() -> None:
    mixed = config(OPENAI_API_KEY="sk-1", OPENAI_STT_BASE_URL="http://whisper/v1")
    assert mixed.stages("")["stt"].api_key == ""
    assert mixed.stages("")["chat"].api_key == "sk-1"


def test_one_stage_may_have_a_server_while_the_rest_is_offline() -> None:
    mixed = config(OPENAI_CHAT_BASE_URL="http://llm/v1")
    assert mixed.needs_offline_backend
    assert [s.base_url for s in mixed.stages(OFFLINE).values()] == [OFFLINE, "http://llm/v1", OFFLINE]


def test_retiring_models_are_accepted_with_a_warning_that_names_date_and_successor() -> None:
    warned = config(OPENAI_API_KEY="k", OPENAI_MODEL="gpt-4o", OPENAI_STT_MODEL="whisper-1").warnings()
    text = " ".join(warned)
    assert "OPENAI_MODEL=gpt-4o" in text and "2027-01-14" in text and "gpt-6-luna" in text
    assert "whisper-1" in text and "2027-02-26" in text
    elsewhere = config(OPENAI_BASE_URL="http://gpu/v1", OPENAI_STT_MODEL="whisper-1")
    assert elsewhere.warnings() == [], "another server's model of that name lives on"
    defaults = config()
    for model in (defaults.openai_model, defaults.openai_stt_model):
        assert model not in RETIREMENTS


def test_speech_goes_over_realtime_at_openai_and_by_the_speech_endpoint_elsewhere() -> None:
    def speech(**env: str) -> tuple[str, bool]:
        loaded = config(**env)
        stage = loaded.stages(OFFLINE)["tts"]
        return stage.model, loaded.speaks_over_realtime(stage.base_url)

    assert speech(OPENAI_API_KEY="k") == ("gpt-realtime-2.1-mini", True)
    assert speech(OPENAI_API_KEY="k", OPENAI_TTS_MODEL="tts-1") == ("tts-1", False)
    assert speech(OPENAI_API_KEY="k", OPENAI_TTS_API="speech")[1] is False
    assert speech(OPENAI_BASE_URL="http://gpu/v1") == ("tts-1", False)
    assert speech(OPENAI_BASE_URL="http://gpu/v1", OPENAI_TTS_API="realtime") == (
        "gpt-realtime-2.1-mini",
        True,
    )
    assert speech() == ("tts-1", False)
    assert config(OPENAI_API_KEY="k").warnings() == [], "nothing of the default choice ends soon"
    (warning,) = config(OPENAI_API_KEY="k", OPENAI_TTS_MODEL="tts-1").warnings()
    assert "2027-01-06" in warning and "gpt-realtime-2.1-mini" in warning


def test_realtime_is_one_stage_with_server_key_model_and_prices_of_its_own() -> None:
    offline = config(MODE="realtime")
    assert offline.needs_offline_backend
    assert [s.base_url for s in offline.stages(OFFLINE).values()] == [OFFLINE]
    assert offline.stages(OFFLINE)["rt"].prices == {}, "free"
    keyed = config(MODE="realtime", OPENAI_API_KEY="k")
    assert list(keyed.stages("")) == ["rt"] and keyed.stages("")["rt"].base_url == OPENAI_URL
    prices = keyed.stages("")["rt"].prices
    assert prices and prices["audio_out"] == 64
    own = config(MODE="realtime", OPENAI_API_KEY="k", OPENAI_RT_BASE_URL="http://gpu/v1")
    assert own.stages("")["rt"].api_key == "" and own.stages("")["rt"].prices is None
    assert config(MODE="realtime", OPENAI_API_KEY="k", OPENAI_RT_MODEL="gpt-realtime").warnings()
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        require_keys(config(MODE="realtime", OPENAI_BASE_URL=OPENAI_URL))


def test_the_model_flag_means_the_realtime_model_in_that_mode() -> None:
    flags = {"OPENAI_MODEL": "my-model", "MODE": "realtime"}
    assert load(flags, {"OPENAI_RT_MODEL": "other"}, {}).openai_rt_model == "my-model"
    assert load({"MODE": "realtime"}, {"OPENAI_MODEL": "chat"}, {}).openai_rt_model == "gpt-realtime-2.1"
    assert load({"OPENAI_MODEL": "chat"}, {}, {}).openai_rt_model == "gpt-realtime-2.1"


def field_of(config: Config) -> str:
    return config.stt_language_field(config.stages("")["stt"])


def test_the_language_is_sent_in_the_form_that_the_engine_takes() -> None:
    assert field_of(config(OPENAI_API_KEY="k")) == "languages"
    assert field_of(config(OPENAI_API_KEY="k", OPENAI_STT_MODEL="whisper-1")) == "language"
    assert field_of(config(OPENAI_BASE_URL="http://gpu/v1")) == "language"
    assert field_of(config()) == "language"


def test_secrets_are_not_in_repr_nor_in_messages() -> None:
    secret = "s3cr3t-value"
    loaded = config(OPENAI_API_KEY=secret, ARI_PASSWORD=secret, OPENAI_STT_API_KEY=secret)
    assert secret not in repr(loaded) and secret not in repr(loaded.stages(""))
    with pytest.raises(ConfigError) as caught:
        config(ARI_PASSWORD=secret + "\n")
    assert secret not in str(caught.value)


def test_missing_ari_password_and_missing_key_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match="ARI_PASSWORD is not set"):
        require_ari(config())
    require_ari(config(ARI_PASSWORD="x"))
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        require_keys(config(OPENAI_BASE_URL=OPENAI_URL))
    with pytest.raises(ConfigError, match="OPENAI_STT_API_KEY is not set"):
        require_keys(config(OPENAI_API_KEY="k", OPENAI_STT_BASE_URL=OPENAI_URL))
    require_keys(config(OPENAI_BASE_URL=OPENAI_URL, MODE="echo"))
    require_keys(config(OPENAI_API_KEY="k"))
    require_keys(config())


def test_dotenv_lines_are_parsed_and_faults_named() -> None:
    text = "# comment\n\nexport OPENAI_MODEL='m 1'\nGREETING=\"Hello # there\"\n"
    assert parse_dotenv(Path(".env"), text) == {"OPENAI_MODEL": "m 1", "GREETING": "Hello # there"}
    for bad in ("A=1\nthis is not a setting\n", "A=1\nB\n", "A=1\nB='open\n"):
        with pytest.raises(ConfigError, match=r"\.env line 2 "):
            parse_dotenv(Path(".env"), bad)


def test_the_documented_table_is_the_generated_one() -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert settings_table() in page
    assert secret_files() in page


def test_a_fallback_has_a_server_a_key_and_a_model_of_its_own_and_never_the_common_key() -> None:
    keyed = config(
        OPENAI_API_KEY="k",
        OPENAI_CHAT_FALLBACK_BASE_URL="http://gpu/v1",
        OPENAI_CHAT_FALLBACK_MODEL="small",
        OPENAI_TTS_FALLBACK_BASE_URL="offline",
        OPENAI_TTS_FALLBACK_VOICE="marin",
    )
    stages = keyed.fallbacks(OFFLINE)
    assert set(stages) == {"chat", "tts"}
    assert (stages["chat"].base_url, stages["chat"].api_key, stages["chat"].model) == (
        "http://gpu/v1",
        "",
        "small",
    )
    assert (stages["tts"].base_url, stages["tts"].voice) == (OFFLINE, "marin")
    assert keyed.needs_offline_backend, "for the voice that stands in"
    assert not config(OPENAI_API_KEY="k").needs_offline_backend
    with pytest.raises(ConfigError, match="OPENAI_STT_FALLBACK_BASE_URL"):
        config(OPENAI_STT_FALLBACK_BASE_URL="gpu")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("STT_FALLBACK_MODEL", "base"), "set without OPENAI_STT_FALLBACK_BASE_URL"),
        (("RT_FALLBACK_API_KEY", "k"), "set without OPENAI_RT_FALLBACK_BASE_URL"),
        (("TTS_FALLBACK_VOICE", "v"), "set without OPENAI_TTS_FALLBACK_BASE_URL"),
        (("CHAT_FALLBACK_BASE_URL", "http://gpu/v1"), "OPENAI_CHAT_FALLBACK_MODEL is not set"),
    ],
)
def test_a_fallback_that_could_not_stand_in_is_told_at_start(given: tuple[str, str], complaint: str) -> None:
    """And not in the emergency."""
    with pytest.raises(ConfigError, match=complaint):
        config(**{f"OPENAI_{given[0]}": given[1]})


def test_the_model_of_a_fallback_ends_as_any_other() -> None:
    loaded = config(
        OPENAI_API_KEY="k",
        OPENAI_STT_FALLBACK_BASE_URL="https://api.openai.com/v1",
        OPENAI_STT_FALLBACK_MODEL="whisper-1",
    )
    assert [line.partition(":")[0] for line in loaded.warnings()] == ["OPENAI_STT_FALLBACK_MODEL=whisper-1"]

"""What engines cost: the arithmetic, the operator's file, and whose prices count."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from ari_app.config import load
from ari_app.errors import ConfigError
from ari_app.prices import cost_of, parse_prices
from ari_app.sources import load_config

TOKENS = {"text_in": 1.0, "text_in_cached": 0.5, "text_out": 4.0}


@pytest.mark.parametrize(
    ("amounts", "prices", "usd"),
    [
        ({"text_in": 500_000, "text_in_cached": 200_000, "text_out": 250_000}, TOKENS, 0.5 + 0.1 + 1.0),
        ({"text_in": 10, "audio_in": 1}, TOKENS, None),  # no price for sound
        ({"text_in": 1_000_000, "audio_in": 0}, TOKENS, 1.0),  # and none is needed
        ({"audio_ms": 90_000}, {"minute": 0.006}, 0.009),
        ({"audio_ms": 90_000, "audio_in": 900, "text_out": 9}, {"minute": 0.006}, 0.009),
        ({"audio_ms": 90_000}, TOKENS, None),
        ({"characters": 2000, "audio_ms": 1}, {"characters": 15.0}, 0.03),
        ({"characters": 2000}, {"minute": 0.015}, None),
        ({"uncounted": 1}, TOKENS, None),
        ({"text_in": 10}, None, None),
        ({}, TOKENS, None),
        ({"text_in": 10, "uncounted": 1}, {}, 0.0),  # what is free is free, counted or not
        ({"text_in": 10}, {"text_in": 0.0}, 0.0),
    ],
)
def test_a_cost_is_known_only_where_all_of_it_is(
    amounts: dict[str, int], prices: dict[str, float] | None, usd: float | None
) -> None:
    cost = cost_of(amounts, prices)
    assert cost == (None if usd is None else pytest.approx(usd))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON: .* in line 1"),
        ('{\n"m": {"text_in": 1,}\n}', "in line 2"),
        ("[]", "must be a JSON object"),
        ('{"m": 4}', "must have an object of prices for 'm'"),
        ('{"m": {}}', "must have an object of prices for 'm'"),
        ('{"m": {"text-in": 1}}', "has 'text-in' for 'm', which is none of text_in,"),
        ('{"m": {"text_in": "1"}}', "must have US dollars, 0 or more, for 'text_in' of 'm'"),
        ('{"m": {"text_in": true}}', "must have US dollars"),
        ('{"m": {"minute": -1}}', "must have US dollars, 0 or more, for 'minute' of 'm'"),
        ('{"m": {"minute": NaN}}', "must have US dollars"),
    ],
)
def test_a_faulty_file_of_prices_is_told_in_a_sentence(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        parse_prices(text)


def test_the_file_is_read_with_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "prices.json"
    monkeypatch.setenv("PRICES_FILE", str(file))
    with pytest.raises(ConfigError, match=r"PRICES_FILE=.* can't be read"):
        load_config(argparse.Namespace())
    file.write_text('{"m": {"hour": 1}}')
    with pytest.raises(ConfigError, match=r"PRICES_FILE=.*prices.json has 'hour' for 'm', which is none of"):
        load_config(argparse.Namespace())
    file.write_text(json.dumps({"m": TOKENS}))
    config, unknown = load_config(argparse.Namespace())
    assert config.prices == {"m": TOKENS} and not unknown


def test_the_operator_s_prices_come_first_and_the_built_in_ones_are_openai_s() -> None:
    from dataclasses import replace

    plain = load({}, {"OPENAI_API_KEY": "k"}, {})
    stages = plain.stages("")
    assert stages["stt"].prices == {"minute": 0.0045}
    assert stages["chat"].prices is None, "nobody has told what it costs"
    assert stages["tts"].prices and stages["tts"].prices["audio_out"] == 20
    own = replace(plain, prices={stages["chat"].model: TOKENS, stages["stt"].model: {"minute": 1.0}})
    assert own.stages("")["chat"].prices == TOKENS and own.stages("")["stt"].prices == {"minute": 1.0}
    elsewhere = load({}, {"OPENAI_BASE_URL": "http://gpu/v1"}, {}).stages("")
    assert [stage.prices for stage in elsewhere.values()] == [None] * 3
    offline = load({}, {}, {}).stages("http://127.0.0.1:4/v1")
    assert [stage.prices for stage in offline.values()] == [{}] * 3, "free"

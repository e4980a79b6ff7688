from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from ari_app.logs import configure, current_call, is_json, mask_number


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("ari_app").setLevel(logging.NOTSET)


def test_numbers_are_masked_but_for_three_digits() -> None:
    assert mask_number("+15551234567") == "*********567"
    assert mask_number("100") == "***"
    assert mask_number("") == ""


def test_each_line_carries_the_call(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure(debug=False, log_format="text")
    token = current_call.set("abc123")
    logging.getLogger("ari_app.x").info("hello")
    logging.getLogger("ari_app.x").debug("hidden")
    current_call.reset(token)
    logging.getLogger("ari_app.x").info("later")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "[abc123] ari_app.x: hello" in lines[0]
    assert "[-] ari_app.x: later" in lines[1]


def test_json_is_one_object_per_line_whatever_is_said(
    restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(debug=False, log_format="json")
    token = current_call.set("abc123")
    logging.getLogger("ari_app.x").info("two\nlines, “quotes” and %s", '"')
    current_call.reset(token)
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger("ari_app.y").exception("failed")
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    said = first.pop("time")
    assert len(said) == len("2026-11-23T04:00:00.123+00:00")
    assert datetime.fromisoformat(said).utcoffset() == timedelta(0)
    assert first == {
        "level": "INFO",
        "logger": "ari_app.x",
        "call": "abc123",
        "message": 'two\nlines, “quotes” and "',
    }
    assert second["call"] is None
    assert second["exception"].startswith("Traceback") and "ValueError: a\nb" in second["exception"]


ODD = "a\nERROR forged\r\x1b[31m\x00\x85\u2028\x9b2J\ud83d ¿qué? 漢"
"""Line ends of several kinds, what steers a terminal, half a character, and what is fit to print."""


def test_a_record_of_text_is_one_line_whatever_callers_send(
    restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(debug=False, log_format="text")
    logging.getLogger("ari_app.x").info("call from %s", ODD)
    said = capsys.readouterr().err
    assert said.endswith(
        "ari_app.x: call from a\\nERROR forged\\r\\u001b[31m\\u0000\\u0085\\u2028\\u009b2J\\ud83d ¿qué? 漢\n"
    )
    assert len(said.splitlines()) == 1


def test_a_record_of_json_is_one_line_whatever_callers_send(
    restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(debug=False, log_format="json")
    logging.getLogger("ari_app.x").info("%s", ODD)
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and said[:-1].isprintable()
    assert json.loads(said)["message"] == ODD


def test_auto_is_json_where_nobody_reads_along(restored: None) -> None:
    configure(debug=False)  # standard error is no terminal in a test
    assert is_json()
    configure(debug=False, quiet=True)
    assert not is_json(), "a command that talks to its user"
    configure(debug=False, log_format="text")
    assert not is_json()


ATTACK = "100\n12:00:00.000 INFO [-] ari_app: forged\x1b[2J\x9b31m\u202e\ud800"


def test_a_line_of_text_is_one_line_whatever_is_said(
    restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who may call chooses a name, a number and a Call-ID; an engine chooses the words of its errors."""
    configure(debug=False, log_format="text")
    log = logging.getLogger("ari_app.x")
    log.info("call from %s", ATTACK)
    try:
        raise ValueError(ATTACK)
    except ValueError:
        log.exception("failed")
    first, second, *traceback = capsys.readouterr().err.splitlines()
    assert first.endswith(
        "call from 100\\u000a12:00:00.000 INFO [-] ari_app: forged\\u001b[2J\\u009b31m\\u202e\\ud800"
    )
    assert second.endswith("ari_app.x: failed")
    assert traceback and all(line.startswith("    ") and line.isprintable() for line in traceback)


def test_json_steers_no_terminal_either(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure(debug=False, log_format="json")
    logging.getLogger("ari_app.x").info("%s", ATTACK)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == ATTACK

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from ari_app.logs import configure, current_call, is_json, mask_number


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in {*root.handlers} - {*before}:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("ari_app").setLevel(logging.NOTSET)


def said(capfd: pytest.CaptureFixture[str]) -> str:
    """What is in the log."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    return capfd.readouterr().err


def test_numbers_are_masked_but_for_three_digits() -> None:
    assert mask_number("+15551234567") == "*********567"
    assert mask_number("100") == "***"
    assert mask_number("") == ""


def test_each_line_carries_the_call(restored: None, capfd: pytest.CaptureFixture[str]) -> None:
    configure(debug=False, log_format="text")
    token = current_call.set("abc123")
    logging.getLogger("ari_app.x").info("hello")
    logging.getLogger("ari_app.x").debug("hidden")
    current_call.reset(token)
    logging.getLogger("ari_app.x").info("later")
    lines = said(capfd).splitlines()
    assert len(lines) == 2
    assert "[abc123] ari_app.x: hello" in lines[0]
    assert "[-] ari_app.x: later" in lines[1]


def test_json_is_one_object_per_line_whatever_is_said(
    restored: None, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(debug=False, log_format="json")
    token = current_call.set("abc123")
    logging.getLogger("ari_app.x").info("two\nlines, “quotes” and %s", '"')
    current_call.reset(token)
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger("ari_app.y").exception("failed")
    first, second = [json.loads(line) for line in said(capfd).splitlines()]
    at = first.pop("time")
    assert len(at) == len("2026-11-23T04:00:00.123+00:00")
    assert datetime.fromisoformat(at).utcoffset() == timedelta(0)
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
    restored: None, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(debug=False, log_format="text")
    logging.getLogger("ari_app.x").info("call from %s", ODD)
    text = said(capfd)
    assert text.endswith(
        "ari_app.x: call from a\\u000aERROR forged\\u000d\\u001b[31m\\u0000\\u0085\\u2028\\u009b2J\\ud83d ¿qué? 漢\n"
    )
    assert len(text.splitlines()) == 1


def test_a_record_of_json_is_one_line_whatever_callers_send(
    restored: None, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(debug=False, log_format="json")
    logging.getLogger("ari_app.x").info("%s", ODD)
    text = said(capfd)
    assert len(text.splitlines()) == 1 and text[:-1].isprintable()
    assert json.loads(text)["message"] == ODD


def test_auto_is_json_where_nobody_reads_along(restored: None) -> None:
    configure(debug=False)  # standard error is no terminal in a test
    assert is_json()
    configure(debug=False, quiet=True)
    assert not is_json(), "a command that talks to its user"
    configure(debug=False, log_format="text")
    assert not is_json()


ATTACK = "100\n12:00:00.000 INFO [-] ari_app: forged\x1b[2J\x9b31m\u202e\ud800"


def test_a_line_of_text_is_one_line_whatever_is_said(
    restored: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who may call chooses a name, a number and a Call-ID; an engine chooses the words of its errors."""
    configure(debug=False, log_format="text")
    log = logging.getLogger("ari_app.x")
    log.info("call from %s", ATTACK)
    try:
        raise ValueError(ATTACK)
    except ValueError:
        log.exception("failed")
    first, second, *traceback = said(capfd).splitlines()
    assert first.endswith(
        "call from 100\\u000a12:00:00.000 INFO [-] ari_app: forged\\u001b[2J\\u009b31m\\u202e\\ud800"
    )
    assert second.endswith("ari_app.x: failed")
    assert traceback and all(line.startswith("    ") and line.isprintable() for line in traceback)


def test_json_steers_no_terminal_either(restored: None, capfd: pytest.CaptureFixture[str]) -> None:
    configure(debug=False, log_format="json")
    logging.getLogger("ari_app.x").info("%s", ATTACK)
    (line,) = said(capfd).splitlines()
    assert line.isprintable()
    assert json.loads(line)["message"] == ATTACK


TALKER = """
import logging, sys
from ari_app import logs
logs.configure(debug=False, log_format="text")
log = logging.getLogger("ari_app.x")
for number in range(int(sys.argv[1])):
    log.info("line %d of the many that nobody reads", number)
logs.say("the last")
print("said", flush=True)
sys.stdin.readline()
"""


def talker(lines: int) -> subprocess.Popen[str]:
    """A process that has said all it has to say, whether it was read or not."""
    command = [sys.executable, "-c", TALKER, str(lines)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "said\n"
    return process


def test_a_log_that_nobody_reads_holds_up_nobody_and_not_the_end() -> None:
    """Docker, a terminal that was stopped, a collector that hangs: their pipe takes 64 KiB."""
    with talker(20_000) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.close()
        assert process.wait(60) == 0
        first, second = (process.stderr.readline() for _ in range(2))
    assert "line 0 of" in first and "line 1 of" in second


def test_what_nobody_could_be_told_is_counted() -> None:
    """Where it is missing; that may be in several places, as the pipe takes some."""
    with talker(20_000) as process:
        _, text = process.communicate("\n", timeout=60)
    told, lost = 0, 0
    for line in text.splitlines():
        if missing := re.search(r" (\d+) lines of the log are lost", line):
            lost += int(missing[1])
            continue
        number = re.search(r": line (\d+) of", line)
        assert number is None or int(number[1]) == told + lost
        told += 1
    assert lost > 0
    assert told + lost == 20_000 + len(["the last"])


def test_what_a_command_says_itself_is_said_in_its_turn() -> None:
    with talker(3) as process:
        _, text = process.communicate("\n", timeout=60)
    *lines, last = text.splitlines()
    assert (len(lines), last) == (3, "the last")

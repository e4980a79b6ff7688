from __future__ import annotations

import logging

import pytest

from ari_app.logs import configure, current_call, mask_number


def test_numbers_are_masked_but_for_three_digits() -> None:
    assert mask_number("+15551234567") == "*********567"
    assert mask_number("100") == "***"
    assert mask_number("") == ""


def test_each_line_carries_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure(debug=False)
        token = current_call.set("abc123")
        logging.getLogger("ari_app.x").info("hello")
        logging.getLogger("ari_app.x").debug("hidden")
        current_call.reset(token)
        logging.getLogger("ari_app.x").info("later")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("ari_app").setLevel(logging.NOTSET)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "[abc123] ari_app.x: hello" in lines[0]
    assert "[-] ari_app.x: later" in lines[1]

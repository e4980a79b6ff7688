"""Every application that the end-to-end tests run is searched, and the search finds what it is to find."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path

import pytest

from tests.e2e.applications import assert_discreet, keep_secret

SETTINGS = {"ARI_USERNAME": "bot", "ARI_PASSWORD": "hunter/2", "OPENAI_API_KEY": "sk-test-1234"}
EVENTS = [
    {"event": "call", "direction": "inbound", "from": "+15551234567", "to": "100"},
    {"event": "bot_said", "turn": 0, "text": "Welcome to Harbour Cycles."},
    {"event": "caller_said", "turn": 1, "text": "What does a new tyre cost?"},
    {"event": "bot_said", "turn": 1, "text": "It costs twenty euros."},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an application that has held a call."""
    call = tmp_path / "recordings" / "serve_20260101-120000_0123456789ab"
    call.mkdir(parents=True)
    (call / "events.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in EVENTS) + '{"event": "end'
    )
    (tmp_path / "state" / "ari_app").mkdir(parents=True)
    (tmp_path / "state" / "ari_app" / "api_token").write_text("made-at-first-use\n")
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "GET /ari/channels?api_key=bot:hunter%2F2",
        f"Authorization: Basic {b64encode(b'bot:hunter/2').decode()}",
        "401 Unauthorized: sk-test-1234",
        "the token is made-at-first-use",
        "REGISTER with a-phones-password",
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_secret_is_found(line: str, debug: bool, folder: Path) -> None:
    keep_secret("a-phones-password")
    with pytest.raises(AssertionError, match="a secret"):
        assert_discreet(f"all is well\n{line}\n", SETTINGS, folder, debug=debug)


@pytest.mark.parametrize(
    "line", ["call from +15551234567", "heard: what DOES a new tyre cost", "answer “It costs twenty” was cut"]
)
def test_a_number_and_words_are_found_where_nobody_asked_for_them(line: str, folder: Path) -> None:
    with pytest.raises(AssertionError, match="in the log"):
        assert_discreet(line, SETTINGS, folder)
    assert_discreet(line, SETTINGS, folder, debug=True)
    assert_discreet(line, SETTINGS | {"DEBUG": "yes"}, folder)


def test_what_belongs_into_a_log_is_no_find(folder: Path) -> None:
    assert_discreet(
        "call 0123456789ab from *********567 to '100'\nthe greeting “Welcome to Harbour Cycles.” is spoken\n"
        "turn 1: speech-to-text failed: connection refused\n",
        SETTINGS,
        folder,
    )


def test_no_end_to_end_test_runs_an_application_that_is_not_searched() -> None:
    allowed = {"applications.py", "test_applications.py"}
    for path in Path(__file__).parent.glob("*.py"):
        text = path.read_text()
        if path.name not in allowed:
            assert not re.search(
                r"application import .*ServeProcess|create_subprocess|subprocess\.Popen", text
            ), path

"""The applications that end-to-end tests run. What each of them wrote is searched for what no log may hold.

No secret, ever: passwords, keys, tokens. No caller's number and no word of a call, unless the operator asked for them
(DEBUG). What was said, and by whom, is known from the recordings.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote
from weakref import WeakKeyDictionary

from ari_app.demo import application
from ari_app.demo.application import clean_environment
from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.settings import SETTINGS
from tests.e2e.checks import words

SECRET_SETTINGS = {setting.env for setting in SETTINGS if setting.secret}
LEAST_NUMBER = 5
"""Shorter numbers are found everywhere."""
WORDS_IN_A_ROW = 3
_secrets: set[str] = set()
_numbers: set[str] = {"demo-caller"}
_commands: WeakKeyDictionary[asyncio.subprocess.Process, tuple[Mapping[str, str], Path]] = WeakKeyDictionary()


def keep_secret(*secrets: str) -> None:
    """What the tests know beside the settings: passwords of phones and trunks."""
    _secrets.update(filter(None, secrets))


def keep_private(*numbers: str) -> None:
    """Numbers of callers who may not be recorded."""
    _numbers.update(numbers)


def passwords_of(asterisk: PrivateAsterisk) -> tuple[str, ...]:
    """Of its accounts."""
    return asterisk.ari_password, asterisk.caller_password, asterisk.browser_password


class ServeProcess(application.ServeProcess):
    """`serve`, whose log is searched when it ends."""

    def __init__(
        self,
        settings: Mapping[str, str],
        *,
        directory: Path,
        arguments: tuple[str, ...] = (),
    ) -> None:
        super().__init__(settings, directory=directory, arguments=arguments)
        self._searched = (settings, directory, "--debug" in arguments)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        if error is None:
            settings, directory, debug = self._searched
            assert_discreet(self.log(), settings, directory, debug=debug)


async def start(
    settings: Mapping[str, str], folder: Path, *arguments: str, prefix: tuple[str, ...] = ()
) -> asyncio.subprocess.Process:
    """`python -m ari_app` with these arguments and exactly these settings; to be ended with `finish`."""
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, "-m", "ari_app", *arguments),
        cwd=folder,
        env=clean_environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _commands[process] = (settings, folder)
    return process


async def finish(process: asyncio.subprocess.Process, *, within_s: float = 40) -> tuple[int, str, str]:
    """Its exit code, what it told its user, and its log."""
    async with asyncio.timeout(within_s):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    settings, folder = _commands[process]
    # What it tells its user is the conversation itself.
    assert_discreet(out.decode(), settings, folder, debug=True)
    assert_discreet(err.decode(), settings, folder)
    return process.returncode, out.decode(), err.decode()


def assert_discreet(log: str, settings: Mapping[str, str], directory: Path, *, debug: bool = False) -> None:
    """Nothing in the log that is nobody's business; with `debug` numbers and words may be there."""
    for secret in secrets_of(settings, directory):
        assert secret not in log, f"a secret is in the log: {secret}"
    if debug or settings.get("DEBUG", "no") != "no":
        return
    numbers, said = told(directory / settings.get("RECORDINGS_DIR", "recordings"))
    for number in numbers | _numbers:
        assert len(number) < LEAST_NUMBER or number not in log, f"a caller's number is in the log: {number}"
    logged = f" {' '.join(words(log))} "
    for text in said:
        spoken = words(text)
        for i in range(len(spoken) - WORDS_IN_A_ROW + 1):
            piece = " ".join(spoken[i : i + WORDS_IN_A_ROW])
            assert f" {piece} " not in logged, f"words of a call are in the log: {piece}"


def secrets_of(settings: Mapping[str, str], directory: Path) -> set[str]:
    """Of one application, as they are and as they are sent."""
    found = {value for name, value in settings.items() if name in SECRET_SETTINGS and value} | _secrets
    state = Path(settings.get("XDG_STATE_HOME", directory / "state"))
    found |= {path.read_text().strip() for path in state.glob("**/api_token")}
    user = settings.get("ARI_USERNAME", "")
    found |= {b64encode(f"{user}:{secret}".encode()).decode() for secret in list(found)}
    return found | {quote(secret, safe="") for secret in found}


def told(recordings: Path) -> tuple[set[str], list[str]]:
    """The numbers of those we spoke with, and what they and the bot said after its greeting."""
    numbers: set[str] = set()
    said: list[str] = []
    for event in _events(recordings.glob("*/events.jsonl")):
        if event["event"] == "call":
            numbers.add(event["from"] if event["direction"] == "inbound" else event["to"])
        elif event["event"] == "caller_said" or (event["event"] == "bot_said" and event["turn"]):
            said.append(event["text"])
    return numbers, said


def _events(logs: Iterable[Path]) -> Iterable[dict[str, str]]:
    for log in logs:
        for line in log.read_text("utf-8").split("\n"):
            if re.fullmatch(r"\{.*\}", line):  # a killed process may leave half a line
                yield json.loads(line)

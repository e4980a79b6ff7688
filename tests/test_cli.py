"""The command line as a user meets it: real processes, wrong input, one sentence and an exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from ari_app import __version__, cli
from ari_app.demo.application import clean_environment
from ari_app.dialog import ports
from ari_app.settings import SETTINGS


def run(
    *arguments: str, folder: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ari_app", *arguments],
        cwd=folder,
        env=clean_environment({"HOME": str(folder), **(env or {})}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def test_version_and_help(tmp_path: Path) -> None:
    assert run("--version", folder=tmp_path).stdout == f"ari_app {__version__}\n"
    text = run("dial", "--help", folder=tmp_path).stdout
    assert "exit codes:" in text and "--silence-duration" in text
    assert run(folder=tmp_path).returncode == 2


UNREACHABLE = {
    "ARI_URL": "http://127.0.0.1:9",
    "ARI_PASSWORD": "x",
    "MODE": "echo",
    "DIAL_EXTENSION_DIGITS": "4",
}


@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        (["dial", "100"], {}, 2, "ARI_PASSWORD is not set"),
        (["serve"], {}, 2, "ARI_PASSWORD is not set"),
        (["dial", "100; rm"], UNREACHABLE, 2, "'100; rm' is not a number to call"),
        (["dial", "+15551234567"], UNREACHABLE, 2, "DIAL_ALLOW=+15551234567"),
        (["dial", "100@evil"], UNREACHABLE, 2, "'100@evil' is not a number to call"),
        (["dial", "100", "--silence-duration", "never"], UNREACHABLE, 2, "from --silence-duration"),
        (["dial", "100"], UNREACHABLE, 3, "127.0.0.1:9"),
        (
            ["dial", "100"],
            {**UNREACHABLE, "MODE": "pipeline", "OPENAI_BASE_URL": "https://api.openai.com/v1"},
            2,
            "OPENAI_API_KEY is not set",
        ),
    ],
)
def test_wrong_input_gets_one_sentence(
    arguments: list[str], env: dict[str, str], code: int, said: str, tmp_path: Path
) -> None:
    result = run(*arguments, folder=tmp_path, env=env)
    assert said in complaint(result)
    assert result.returncode == code


def test_a_limit_on_calls_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    call = {"call_id": "a", "started_at": time.time() - 5, "limit_s": 60.0, "ended_at": time.time() - 1}
    folder = tmp_path / "state" / "ari_app" / "dialled"
    folder.mkdir(parents=True)
    (folder / "ledger.json").write_text(json.dumps([call]))
    env = {**UNREACHABLE, "XDG_STATE_HOME": str(tmp_path / "state"), "DIAL_PER_MINUTE": "1"}
    result = run("dial", "100", folder=tmp_path, env=env)
    assert "DIAL_PER_MINUTE allows 1" in complaint(result)
    assert result.returncode == 8


def test_a_malformed_env_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ARI_PASSWORD=x\nthis is wrong\n")
    result = run("serve", folder=tmp_path)
    assert ".env line 2" in complaint(result)
    assert result.returncode == 2


def test_a_secret_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run("serve", folder=tmp_path, env={"ARI_PASSWORD_FILE": "nowhere/ari"})
    assert "ARI_PASSWORD_FILE=nowhere/ari can't be read" in complaint(result)
    assert result.returncode == 2


def test_a_secret_comes_from_the_first_line_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "ari").touch(mode=0o600)
    (tmp_path / "ari").write_text("s3cret\nnote\n")
    env = {**UNREACHABLE, "ARI_PASSWORD": "", "ARI_PASSWORD_FILE": "ari"}
    result = run("dial", "100", folder=tmp_path, env=env)
    assert "127.0.0.1:9" in complaint(result), "the password was taken, Asterisk is not there"
    assert result.returncode == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"\nx\n", "is empty"), (b"\xff", "UTF-8"), (b"x" * 70_000, "larger than 64 KiB")],
)
def test_a_secret_file_without_a_secret_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "key").write_bytes(content)
    result = run("serve", folder=tmp_path, env={"OPENAI_API_KEY_FILE": "key"})
    assert "OPENAI_API_KEY_FILE=key" in complaint(result) and said in complaint(result)
    assert result.returncode == 2


def test_a_secret_that_every_user_may_read_is_warned_of(tmp_path: Path) -> None:
    for name, text in ((".env", "API_TOKEN=0123456789abcdef\n"), ("ari", "s3cret\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    env = {**UNREACHABLE, "ARI_PASSWORD": "", "ARI_PASSWORD_FILE": "ari"}
    said = run("dial", "100", folder=tmp_path, env=env).stderr
    for name in (".env", "ari"):
        assert f"warning: {name} holds a secret and every user may read it: chmod 600." in said
        (tmp_path / name).chmod(0o640)
    assert "holds a secret" not in run("dial", "100", folder=tmp_path, env=env).stderr


SECRETS = {setting.env: f"sentinel-{setting.env}" for setting in SETTINGS if setting.secret}


@pytest.mark.parametrize("command", ["serve", "dial", "check"])
def test_no_secret_is_told_to_anybody(tmp_path: Path, command: str) -> None:
    """Not by a log of everything, not by what fails with it in hand, nor in what another user sees of the process."""
    said = ""
    for mode in ("pipeline", "realtime"):
        nowhere = {}
        for stage in ("STT", "CHAT", "TTS", "RT"):
            nowhere[f"OPENAI_{stage}_BASE_URL"] = "http://127.0.0.1:9/v1"
            nowhere[f"OPENAI_{stage}_FALLBACK_BASE_URL"] = "http://127.0.0.1:9/v2"
            nowhere[f"OPENAI_{stage}_FALLBACK_MODEL"] = "none"
        env = {**UNREACHABLE, **SECRETS, **nowhere, "DEBUG": "yes", "MODE": mode, "WEB_PORT": "0"}
        result = run(command, *(["100"] if command == "dial" else []), folder=tmp_path, env=env)
        assert result.returncode not in (0, 2), result.stderr
        said += result.stdout + result.stderr
    assert "127.0.0.1:9" in said and "sentinel" not in said


def test_no_secret_has_a_flag() -> None:
    """Every user of the machine sees the arguments of all processes."""
    assert len(SECRETS) >= 8
    for setting in SETTINGS:
        assert not (setting.secret and setting.flag)
        named = (
            any(word in setting.env for word in ("PASSWORD", "API_KEY", "TOKEN")) and setting.default == ""
        )
        assert setting.secret == named, setting.env


def test_a_misspelt_setting_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ARI_PASSWRD=hidden\n")
    result = run("dial", "100", folder=tmp_path, env=UNREACHABLE)
    assert result.stderr.splitlines()[0] == (
        "warning: ARI_PASSWRD in .env is no setting: did you mean ARI_PASSWORD?"
    )
    assert "hidden" not in result.stderr


def test_a_server_in_a_container_says_everything_in_json(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("XYZ=1\n")
    result = run("serve", folder=tmp_path, env={**UNREACHABLE, "RTP_HOST": "192.0.2.1"})
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING", "ERROR"]
    assert "RTP_HOST" in lines[1]["message"]
    assert result.returncode == 1


def test_the_demo_checks_where_its_report_goes_before_it_begins(tmp_path: Path) -> None:
    result = run("demo", "--json", "nowhere/report.json", folder=tmp_path)
    assert "nowhere/report.json" in complaint(result)
    assert result.returncode == 2


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("offline", "--port", str(port), folder=tmp_path)
    assert result.returncode == 1
    assert str(port) in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


# --- check -------------------------------------------------------------------------------------------

LEVELS = {"ok", "warning", "FAILED", "skipped"}


def findings_of(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The lines by subject, and the last one as ""; each is one finding in columns."""
    assert result.stderr == ""
    *lines, last = result.stdout.splitlines()
    for line in lines:
        assert line[:8].strip() in LEVELS and line[8] == " " and line[24] == " ", line
        assert line[9] != " " and line[25] != " ", line
    return {line[9:24].strip(): line for line in lines} | {"": last}


def test_check_looks_on_where_it_can_and_its_code_is_that_of_the_failure(tmp_path: Path) -> None:
    result = run("check", "--json", "report.json", folder=tmp_path, env=UNREACHABLE)
    found = findings_of(result)
    assert result.returncode == 3
    assert list(found) == ["settings", "ports", "recordings", "dialling", "asterisk", "engines", ""]
    assert found["asterisk"] == (
        "FAILED   asterisk        nobody answers at http://127.0.0.1:9 (Connection refused) "
        "-> check ARI_URL, and that Asterisk is running"
    )
    assert found[""] == "1 failed, 0 warnings"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_code"] == 3
    assert [finding["subject"] for finding in report["findings"]] == list(found)[:-1]
    assert {finding["level"] for finding in report["findings"]} == {"ok", "skipped", "failed"}


def test_check_takes_the_failure_nearest_to_the_root_for_its_code(tmp_path: Path) -> None:
    env = {**UNREACHABLE, "RTP_PORTS": "40000-40001"}
    result = run("check", "--number", "+15551234567", folder=tmp_path, env=env)
    found = findings_of(result)
    assert result.returncode == 2
    assert found["ports"].startswith("FAILED") and "MAX_CALLS=2" in found["ports"]
    assert found["dialling"].startswith("FAILED") and "DIAL_ALLOW" in found["dialling"]
    assert found["asterisk"].startswith("FAILED")
    assert found[""] == "3 failed, 0 warnings"


def test_check_names_unknown_settings_with_the_nearest_known_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ARI_PASSWRD=hidden\nSIP_RTP_PORTS=10000-10009\nMAX_CALLS=20\nQUUX=1\n")
    result = run("check", folder=tmp_path, env=UNREACHABLE)
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "warning  settings        ARI_PASSWRD in .env is no setting: did you mean ARI_PASSWORD?",
        "warning  settings        QUUX in .env is no setting: delete the line, or see docs/configuration.md",
    ]
    assert "hidden" not in result.stdout
    assert "room for 2 calls (MAX_CALLS)" in findings_of(result)["ports"], "Asterisk's side counts too"
    assert lines[-1].endswith("2 warnings")


@pytest.mark.parametrize(
    ("dotenv", "env", "said"),
    [
        ("", {"ARI_URL": "ftp://x"}, "ARI_URL 'ftp://x' (from the environment) must be an http://"),
        ("this is wrong", {}, ".env line 1"),
        ("", {"ARI_PASSWORD": "", "ARI_PASSWORD_FILE": "nowhere"}, "ARI_PASSWORD_FILE=nowhere can't be read"),
    ],
)
def test_check_with_settings_that_can_not_be_used(
    dotenv: str, env: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    result = run("check", "--json", "report.json", folder=tmp_path, env={**UNREACHABLE, **env})
    found = findings_of(result)
    assert result.returncode == 2
    assert list(found) == ["settings", ""] and said in found["settings"]
    assert "nothing else was looked at" in found["settings"]
    assert json.loads((tmp_path / "report.json").read_text())["exit_code"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reg-timeout", "soon"], "'soon' must be a number from 0 to 3600 (s)"),
        (["--reg-timeout", "inf"], "'inf' must be"),
        (["--reg-timeout", "nan"], "'nan' must be"),
        (["--reg-timeout", "-1"], "'-1' must be"),
    ],
)
def test_check_is_asked_wrongly(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = run("check", *arguments, folder=tmp_path, env=UNREACHABLE)
    assert result.returncode == 2 and said in result.stderr and result.stdout == ""


def test_check_makes_sure_first_that_its_report_can_be_written(tmp_path: Path) -> None:
    result = run("check", "--json", "nowhere/report.json", folder=tmp_path, env=UNREACHABLE)
    assert "nowhere/report.json" in complaint(result)
    assert result.returncode == 2


# --- signals -----------------------------------------------------------------------------------------


async def start(*arguments: str, folder: Path, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ari_app", *arguments),
        cwd=folder,
        env=clean_environment({"HOME": str(folder), **env}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [(["serve"], signal.SIGTERM, 0), (["serve"], signal.SIGINT, 0), (["dial", "100"], signal.SIGINT, 130)],
)
async def test_a_signal_is_obeyed_while_asterisk_keeps_us_waiting(
    arguments: list[str], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    connected = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        process = await start(*arguments, folder=tmp_path, env={**UNREACHABLE, "ARI_URL": url})
        async with asyncio.timeout(20):
            await connected.wait()
            process.send_signal(number)
            out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    assert b"Traceback" not in err
    assert out == b""


@pytest.mark.parametrize(
    "what",
    [
        ports.CallerSaid(1, "a\x1b[2Jb\nended: answered\ud800", "en", b""),
        ports.CallerNotUnderstood(1, "a\x1b[2Jb\nended: answered\ud800"),
        ports.BotSaid(1, "a\x1b[2Jb\nended: answered\ud800", "", False, b""),
        ports.BotSaid(1, "", "a\x1b[2Jb\nended: answered\ud800", True, b""),
        ports.EngineFailed(1, "chat", "a\x1b[2Jb\nended: answered\ud800", False, "failed"),
    ],
)
def test_what_is_said_during_dial_steers_no_terminal(
    what: object, capsys: pytest.CaptureFixture[str]
) -> None:
    cli._print_progress(what)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable() and "a?[2Jb?ended: answered?" in line

"""The command line as a user meets it: real processes, wrong input, one sentence and an exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ari_app import __version__
from ari_app.demo.application import clean_environment


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


UNREACHABLE = {"ARI_URL": "http://127.0.0.1:9", "ARI_PASSWORD": "x", "MODE": "echo"}


@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        (["dial", "100"], {}, 2, "ARI_PASSWORD is not set"),
        (["serve"], {}, 2, "ARI_PASSWORD is not set"),
        (["dial", "100; rm"], UNREACHABLE, 2, "'100; rm' is not a number to call"),
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
    (tmp_path / "ari").write_text("s3cret\nnote\n")
    env = {**UNREACHABLE, "ARI_PASSWORD": "", "ARI_PASSWORD_FILE": "ari"}
    result = run("dial", "100", folder=tmp_path, env=env)
    assert "127.0.0.1:9" in complaint(result), "the password was taken, Asterisk is not there"
    assert result.returncode == 3


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

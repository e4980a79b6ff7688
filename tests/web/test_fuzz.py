"""The API under schemathesis: requests of every kind that its description allows or forbids."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.web.test_web import TOKEN, operator

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.timeout(240)
async def test_no_request_gets_an_answer_that_is_not_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    async with operator(tmp_path, DIAL_ALLOW="+4420", SAVE_RECORDINGS="yes") as who:
        call_id = await who.caller()
        fuzzer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"{str(who.http._base_url).rstrip(chr(47))}/api/openapi.json",
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *(
                "--checks",
                CHECKS,
                "--max-examples",
                "40",
                "--seed",
                "1",
                "--phases",
                "examples,coverage,fuzzing",
            ),
            # The stream of events never ends, and the call is needed to the end.
            *("--exclude-path", "/api/events", "--suppress-health-check", "all"),
            *("--request-timeout", "10", "--no-color"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await fuzzer.communicate()
        assert fuzzer.returncode == 0, said.decode()[-6000:]
        assert (await who.get(f"/api/calls/{call_id}"))[0] == 200, "the application still serves"

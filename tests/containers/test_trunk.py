"""A trunk: the provider is a second Asterisk of the same image, with an account for us and one for a phone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_app.demo.caller import SipCaller
from ari_app.demo.voice import utterance
from tests.containers.stack import Stack, docker
from tests.containers.test_compose import FACTS, QUESTION

PROVIDER = "ari_app-test-provider"
NETWORK = "ari_app-test_outside"
VISITOR_PASSWORD = "someone-who-calls-the-provider"
OUR_PASSWORD = r"""a $HOME $$ "#1" \x;y"""
"""With whatever .env, compose or Asterisk could take for something else."""
STATE_WITHIN_S = 30

ACCOUNT = """
[{name}](endpoint-common)
context = from-internal
auth = {name}
aors = {name}

[{name}]
type = auth
auth_type = digest
username = {name}
password = {password}

[{name}]
type = aor
max_contacts = 1
"""
NUMBERS_OF_THE_PROVIDER = """
exten => 600,1,Dial(PJSIP/visitor,30)
exten => 700,1,Dial(PJSIP/customer,30)
"""


@pytest.fixture
def provider(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """Runs beside us in the network that stands for the internet; its address."""
    folder = tmp_path / "provider"
    folder.mkdir()
    accounts = {"visitor": VISITOR_PASSWORD, "customer": OUR_PASSWORD.replace(";", "\\;")}
    text = "".join(ACCOUNT.format(name=name, password=password) for name, password in accounts.items())
    (folder / "pjsip_local.conf").write_text(text)
    (folder / "extensions_local.conf").write_text(NUMBERS_OF_THE_PROVIDER)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    docker(
        *("run", "-d", "--rm", "--name", PROVIDER, "--network", NETWORK, "--network-alias", "provider"),
        *("--tmpfs", "/etc/asterisk:uid=10001,gid=10000,mode=0700", "-v", f"{folder}:/local:ro"),
        "ari_app-asterisk",
    )
    try:
        deadline = time.monotonic() + STATE_WITHIN_S
        while "healthy" not in docker("inspect", "-f", "{{.State.Health.Status}}", PROVIDER).split():
            assert time.monotonic() < deadline, docker("logs", PROVIDER)
            time.sleep(0.5)
        address = '{{(index .NetworkSettings.Networks "' + NETWORK + '").IPAddress}}'
        yield docker("inspect", "-f", address, PROVIDER).strip()
    finally:
        docker("kill", PROVIDER)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    folder = tmp_path / "clone"
    folder.mkdir()
    with Stack(
        folder, {"SIP_LISTEN_PORT": "15060", "SIP_RTP_PORTS": "15100-15115", "WEB_PUBLISHED_PORT": "18091"}
    ) as running:
        yield running


async def _state(stack: Stack, wanted: str) -> None:
    deadline = time.monotonic() + STATE_WITHIN_S
    while wanted not in (globals_ := stack.console("dialplan show globals").replace(" ", "")):
        assert time.monotonic() < deadline, f"TRUNK_STATE does not become {wanted}: {globals_}"
        await asyncio.sleep(0.5)


async def test_a_trunk_refuses_then_registers_and_carries_calls_both_ways(
    stack: Stack, provider: str
) -> None:
    trunk = {
        "SIP_LISTEN_PORT": "15060",
        "SIP_RTP_PORTS": "15100-15115",
        "SIP_DOMAIN": "provider",
        "SIP_USERNAME": "customer",
        "DIAL_ALLOW": "600",
        "SYSTEM_MESSAGE": FACTS,
        "GREETING": "Hello, this is the bot.",
    }
    await asyncio.to_thread(stack.set, trunk | {"SIP_PASSWORD": "wrong"})
    await _state(stack, "TRUNK_STATE=Rejected")
    refused = stack.compose("exec", "-T", "app", "python", "-m", "ari_app", "check", check=False)
    line = next(line for line in refused.splitlines() if " registration " in line)
    assert line.startswith("FAILED") and "Rejected" in line

    await asyncio.to_thread(stack.set, trunk | {"SIP_PASSWORD": OUR_PASSWORD})
    await _state(stack, "TRUNK_STATE=Registered")
    assert "all is well" in stack.exec("app", "python", "-m", "ari_app", "check")

    gateway = docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", NETWORK).strip()
    account = {"server": (provider, 5060), "user": "visitor", "password": VISITOR_PASSWORD}
    async with SipCaller(**account, address=gateway, register=True, answer="auto") as visitor:  # type: ignore[arg-type]
        call = await visitor.dial("700")
        await call.answered(10)
        assert (await call.listen_until_silence(max_s=15)).sound_s > 0.5, "no greeting was heard"
        await call.say(await asyncio.to_thread(utterance, QUESTION))
        assert (await call.listen_until_silence(max_s=15)).sound_s > 0.5, "no answer was heard"
        await call.hangup()

        dial = ["exec", "-T", "app", "python", "-m", "ari_app", "dial", "600"]
        dialling = asyncio.create_task(asyncio.to_thread(stack.compose, *dial))
        incoming = await visitor.wait_incoming(20)
        await incoming.answered(10)
        assert (await incoming.listen_until_silence(max_s=15)).sound_s > 0.5, "the called one heard nothing"
        await incoming.hangup()
        await dialling

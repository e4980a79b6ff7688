"""The SIP caller: against the echo of a real Asterisk, and against a second caller as the other side."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix, fetch
from ari_app.demo.baresip import BARESIP, bound_port
from ari_app.demo.caller import CallerError, SipCall, SipCaller
from tests.e2e.callers import RefusingPhone, human_sentences

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def prefix() -> Prefix:
    return fetch(log.info, BARESIP)


@pytest.fixture
async def alice(prefix: Prefix) -> AsyncIterator[SipCaller]:
    async with SipCaller(prefix=prefix, user="alice") as caller:
        yield caller


@pytest.fixture
async def bob(prefix: Prefix) -> AsyncIterator[SipCaller]:
    async with SipCaller(prefix=prefix, user="bob") as caller:
        yield caller


def uri(caller: SipCaller | RefusingPhone) -> str:
    host, port = caller.sip_address if isinstance(caller, SipCaller) else caller.address
    return f"sip:200@{host}:{port}"


async def connect(alice: SipCaller, bob: SipCaller) -> tuple[SipCall, SipCall]:
    call = await alice.dial(uri(bob))
    incoming = await bob.wait_incoming()
    await incoming.answer()
    await call.answered(5)
    return call, incoming


@asynccontextmanager
async def other_side_speaks(call: SipCall, pcm: bytes) -> AsyncIterator[None]:
    speaking = asyncio.create_task(call.say(pcm))
    try:
        yield
    finally:
        await speaking


def noise(ms: int, seed: int = 1) -> bytes:
    samples = np.random.default_rng(seed).standard_normal(ms * 8) * 3000
    return samples.astype("<i2").tobytes()


def similarity(heard: bytes, said: bytes) -> tuple[float, float]:
    """Best normalised correlation of `said` within `heard`, and the delay in s at which it is found."""
    x = np.frombuffer(heard, "<i2").astype(np.float64)
    y = np.frombuffer(said, "<i2").astype(np.float64)
    size = 1 << (len(x) + len(y)).bit_length()
    products = np.fft.irfft(np.fft.rfft(x, size) * np.conj(np.fft.rfft(y, size)), size)[: len(x) - len(y) + 1]
    at = int(np.argmax(products))
    found = x[at : at + len(y)]
    return float(products[at] / np.sqrt((y @ y) * (found @ found))), at / 8000


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- a real Asterisk


async def test_what_is_said_into_an_echo_comes_back_word_for_word(prefix: Prefix) -> None:
    sentence = human_sentences()[1]
    async with (
        PrivateAsterisk(await asyncio.to_thread(fetch, log.info)) as asterisk,
        SipCaller(
            server=(asterisk.sip_host, asterisk.sip_port),
            user=asterisk.caller_user,
            password=asterisk.caller_password,
            register=True,
            prefix=prefix,
        ) as caller,
    ):
        call = await caller.dial("124")
        await call.answered(5)
        await asyncio.sleep(0.3)
        said = await call.say(sentence.pcm)
        heard = await call.listen_until_silence(min_silence_ms=300, max_s=1)
        everything = call.heard_since(said.began_at)

        likeness, delay_s = similarity(everything.pcm, sentence.pcm)
        assert likeness > 0.99  # G.711 is all that lies between
        assert 0 <= delay_s < 0.3
        assert everything.first_sound_at == pytest.approx(said.began_at + 0.04, abs=0.3)
        assert everything.last_sound_at == pytest.approx(said.ended_at - 0.04, abs=0.3)
        assert heard.sound_s < 0.5  # listening begins where the utterance ended

        await call.send_dtmf("12")
        await call.hangup()
        assert call.received_dtmf == "12"
        assert "0 active channels" in await asterisk.rx("core show channels")


async def test_a_wrong_password_is_refused(prefix: Prefix) -> None:
    async with PrivateAsterisk(await asyncio.to_thread(fetch, log.info)) as asterisk:
        server = (asterisk.sip_host, asterisk.sip_port)
        wrong = SipCaller(
            server=server, user=asterisk.caller_user, password="x", register=True, prefix=prefix
        )
        with pytest.raises(CallerError, match="refuses the registration: 40"):
            await wrong.__aenter__()
        async with SipCaller(server=server, user=asterisk.caller_user, password="x", prefix=prefix) as caller:
            call = await caller.dial("124")
            assert call.ended
            assert call.status in (401, 403)


# --- two callers


async def test_conversation_and_barge_in(alice: SipCaller, bob: SipCaller) -> None:
    call, incoming = await connect(alice, bob)
    assert (call.status, incoming.status) == (200, 200)
    assert incoming.peer_uri.startswith("sip:alice@")

    greeting, question = noise(700, seed=2), noise(400, seed=3)
    await incoming.say(greeting)
    heard = await call.listen_until_silence(min_silence_ms=300, max_s=5)
    assert similarity(heard.pcm, greeting)[0] > 0.99
    assert heard.sound_s == pytest.approx(0.7, abs=0.05)

    async with other_side_speaks(incoming, noise(2000, seed=4)):
        said = await call.say_over(question, after_ms=300)
    over = call.heard_since(said.began_at)
    assert over.first_sound_at == pytest.approx(said.began_at, abs=0.1)  # both spoke at once
    assert similarity(incoming.heard_since(said.began_at).pcm, question)[0] > 0.99

    nothing = await call.listen_until_silence(min_silence_ms=300, max_s=0.6)
    assert nothing.first_sound_at is None or nothing.sound_s < 2


async def test_keys_arrive_one_by_one(alice: SipCaller, bob: SipCaller) -> None:
    call, incoming = await connect(alice, bob)
    await call.send_dtmf("122*#")
    await call.hangup()
    await incoming.closed(5)
    assert incoming.received_dtmf == "122*#"
    with pytest.raises(CallerError, match="keys are"):
        await call.send_dtmf("hello")


async def test_busy(alice: SipCaller, bob: SipCaller) -> None:
    call = await alice.dial(uri(bob))
    incoming = await bob.wait_incoming()
    assert call.status == 180
    await incoming.reject()
    await call.closed(5)
    assert call.status == 486
    assert call.close_reason.startswith("486 ")
    with pytest.raises(CallerError, match="the call ended"):
        await call.answered(1)


@pytest.mark.parametrize(("status", "reason"), [(603, "Decline"), (404, "Not Found"), (480, "Gone Out")])
async def test_other_refusals(alice: SipCaller, status: int, reason: str) -> None:
    async with RefusingPhone(status, reason, ring_s=0.1) as phone:
        call = await alice.dial(uri(phone))
        await call.closed(5)
        assert (call.status, call.close_reason) == (status, f"{status} {reason}")
        assert len(phone.calls) == 1


async def test_ringing_without_answer_until_the_caller_gives_up(alice: SipCaller) -> None:
    async with RefusingPhone(None) as phone:
        call = await alice.dial(uri(phone))
        with pytest.raises(CallerError, match="not answered within 0.3 s"):
            await call.answered(0.3)
        await call.hangup()
        assert call.close_reason == "hung up here"
        await asyncio.sleep(0.1)
        assert phone.cancelled == 1


async def test_calls_that_follow_each_other_do_not_mix(alice: SipCaller, bob: SipCaller) -> None:
    first, incoming = await connect(alice, bob)
    await first.say(noise(300))
    await incoming.hangup()
    await first.closed(5)
    assert first.close_reason == "hung up by the other side"
    assert incoming.close_reason == "hung up here"
    await first.hangup()  # nothing more to do

    second, incoming = await connect(alice, bob)
    with pytest.raises(CallerError, match="in another call"):
        await alice.dial(uri(bob))
    await asyncio.sleep(0.6)
    await second.hangup()
    await incoming.closed(5)
    assert len(incoming.received_pcm()) >= 8000
    assert incoming.heard_since(0).first_sound_at is None  # not the first call's utterance


async def test_answering_by_itself(alice: SipCaller, prefix: Prefix) -> None:
    async with SipCaller(prefix=prefix, answer="auto") as robot:
        call = await alice.dial(uri(robot))
        await call.answered(5)
        incoming = await robot.wait_incoming(5)
        await incoming.answered(5)


# --- files and processes


async def test_speaks_from_a_wav_file_and_refuses_others(
    alice: SipCaller, bob: SipCaller, tmp_path: Path
) -> None:
    said = noise(300)
    for name, rate in (("good.wav", 8000), ("bad.wav", 16000)):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(said)
    call, incoming = await connect(alice, bob)
    await call.say(tmp_path / "good.wav")
    heard = await incoming.listen_until_silence(min_silence_ms=200, max_s=3)
    assert similarity(heard.pcm, said)[0] > 0.99
    with pytest.raises(CallerError, match="8 kHz"):
        await call.say(tmp_path / "bad.wav")
    with pytest.raises(CallerError, match="cannot be read"):
        await call.say(tmp_path / "absent.wav")


async def test_leaving_hangs_up_and_ends_the_process(alice: SipCaller, prefix: Prefix) -> None:
    async with SipCaller(prefix=prefix) as bob:
        call, incoming = await connect(alice, bob)
        pid = bob.pid
    assert incoming.ended
    await call.closed(5)
    assert not is_alive(pid)
    with pytest.raises(CallerError, match="not running"):
        await bob.dial("1")


async def test_the_end_of_the_agent_ends_the_call(alice: SipCaller) -> None:
    async with RefusingPhone(None) as phone:
        call = await alice.dial(uri(phone))
        os.kill(alice.pid, signal.SIGKILL)
        await call.closed(5)
        with pytest.raises(CallerError, match="not running"):
            await call.say(noise(20))


async def test_a_fixed_port_can_be_chosen(prefix: Prefix, alice: SipCaller) -> None:
    async with SipCaller(prefix=prefix) as first:
        port = first.sip_address[1]
    async with SipCaller(prefix=prefix, local_port=port) as second:
        assert second.sip_address == ("127.0.0.1", port)
        assert bound_port(second.pid, "udp", "127.0.0.1") == port


KILLED_PARENT = """
import asyncio, sys
from ari_app.demo.caller import SipCaller
async def main():
    async with SipCaller() as caller:
        print(caller.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_killed_parent_leaves_no_process(prefix: Prefix, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED_PARENT),
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    for _ in range(100):
        if not is_alive(pid):
            break
        await asyncio.sleep(0.05)
    assert not is_alive(pid)

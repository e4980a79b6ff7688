"""Single calls against a strict ARI peer and real sockets: every stage, every fault, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ari_app import call as call_module
from ari_app import line
from ari_app.ari import transport
from ari_app.ari.client import AriClient
from ari_app.ari.events import Event, StasisStart, parse_event
from ari_app.ari.outcome import Ending, Outcome
from ari_app.call import Call, CallSettings, Dial
from ari_app.dialog import ports
from ari_app.dialog.echo import Echo
from ari_app.happenings import Ended, Progress, RecordingFailed
from ari_app.record.recorder import MAX_FRAMES, Recorder, RecorderSettings
from ari_app.record.recording import OpenRecorder
from ari_app.rtp.sender import RtpSender
from tests.fakes.asterisk import FakeAsterisk, until
from tests.fakes.call_bench import ScriptedBrain, frame, media_of, nothing_leaks
from tests.fakes.rtp_peer import RtpPeer

CALLER = "1700000000.1"
TAG = "a" * 8
REFUSED = '{"message": "a scripted refusal"}'


class Bench:
    """One Asterisk, one connection, and the call under test."""

    def __init__(self, asterisk: FakeAsterisk) -> None:
        self.asterisk = asterisk
        self.sender = RtpSender()
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.seen: list[object] = []
        """What the observer got."""
        self.client = AriClient(asterisk.url, asterisk.user, asterisk.password, "bot", self._on_event)

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        for call in self.calls:
            call.push_event(event)

    def make(
        self,
        brain: ports.Brain,
        *,
        dial: Dial | None = None,
        open_recorder: OpenRecorder | None = None,
        **settings: Any,
    ) -> Call:
        call = Call(
            f"{len(self.calls):012x}",
            ari=self.client.rest,
            sender=self.sender,
            brain=brain,
            settings=CallSettings(tag=TAG, **settings),
            caller_channel_id=None if dial else CALLER,
            dial=dial,
            open_recorder=open_recorder,
            observers=(self.seen.append,),
        )
        self.calls.append(call)
        return call

    def call_in(self, brain: ports.Brain, **settings: Any) -> tuple[Call, asyncio.Task[Ending]]:
        self.asterisk.caller_arrives(CALLER, app="bot")
        call = self.make(brain, **settings)
        return call, asyncio.create_task(call.run())

    def call_out(
        self, brain: ports.Brain, ring_timeout_s: float = 30, **settings: Any
    ) -> tuple[Call, asyncio.Task[Ending]]:
        dial = Dial("PJSIP/100@trunk", "Bot <200>", ring_timeout_s)
        call = self.make(brain, dial=dial, **settings)
        return call, asyncio.create_task(call.run())

    async def sweep(self) -> None:
        """Take down what the next connection would."""
        for channel_id in list(self.asterisk.channels):
            await self.client.rest.hangup(channel_id)
        for bridge_id in list(self.asterisk.bridges):
            await self.client.rest.delete_bridge(bridge_id)

    @property
    def stages(self) -> list[str]:
        return [what.stage for what in self.seen if isinstance(what, Progress)]

    async def talking(self) -> None:
        await until(lambda: "talking" in self.stages)

    @property
    def handed_back(self) -> str:
        """The result with which the caller went back to the dialplan."""
        caller = self.asterisk.channels[CALLER]
        assert not caller.app, "still in the application"
        return caller.variables["ARI_APP_RESULT"]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with nothing_leaks(), FakeAsterisk() as asterisk:
        bench = Bench(asterisk)
        async with bench.sender, bench.client:
            running = asyncio.create_task(bench.client.run())
            await until(bench.client.registered.is_set)
            async with nothing_of_the_calls_leaks():
                yield bench
                asterisk.assert_clean(CALLER)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def nothing_of_the_calls_leaks() -> AsyncIterator[None]:
    """Before the connection and the sender go, which may hide a leak; pooled HTTP connections may stay."""
    before = asyncio.all_tasks()
    yield
    names = [task.get_name() for task in asyncio.all_tasks() - before]
    assert not [name for name in names if name[:12] == "0" * 12], names


async def ended(running: asyncio.Task[Ending]) -> Ending:
    async with asyncio.timeout(10):
        return await running


def is_free(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return False
        return True


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# --- the whole life ----------------------------------------------------------------------------------


async def test_an_inbound_call_from_arrival_to_hang_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    call, running = bench.call_in(Echo())
    await bench.talking()
    assert bench.asterisk.channels[CALLER].answered
    assert bench.asterisk.bridges == {call.bridge_id: [CALLER, call.media_id]}
    media = media_of(bench.asterisk, call.media_id)
    assert not is_free(media.bot)
    for _ in range(10):
        media.say(frame(5000))
        await asyncio.sleep(0.02)
    await until(lambda: any(a.payload == frame(5000)[::-1] for a in media.hear()))
    bench.asterisk.hang_up(CALLER)
    assert await ended(running) == Ending(Outcome.ANSWERED, "far", "hung up, cause 16 (Normal Clearing)")
    await until(lambda: is_free(media.bot))
    bench.asterisk.assert_clean()
    assert bench.stages == ["talking"]
    assert isinstance(bench.seen[-1], Ended)
    assert not complaints(caplog)


STAGES = {
    "bridge": ("POST", "/bridges"),
    "media": ("POST", "/channels/externalMedia"),
    "answer": ("POST", f"/channels/{CALLER}/answer"),
    "join": ("POST", "/bridges/ari_app-"),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_the_caller_hangs_up_during_set_up(
    bench: Bench, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Asterisk is busy with the step while the news arrive."""
    held = bench.asterisk.hold(*STAGES[stage])
    brain = ScriptedBrain()
    _, running = bench.call_in(brain)
    await held.reached.wait()
    bench.asterisk.hang_up(CALLER)
    await asyncio.sleep(0.03)
    held.go.set()
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (Outcome.CANCELLED, "far")
    bench.asterisk.assert_clean()
    assert not brain.reached.is_set()
    assert not complaints(caplog)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_step_meets_a_caller_who_has_just_hung_up(
    bench: Bench, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The refusal of the step may come before the event."""
    held = bench.asterisk.hold(*STAGES[stage])
    _, running = bench.call_in(ScriptedBrain())
    await held.reached.wait()
    held.go.set()
    bench.asterisk.hang_up(CALLER)
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (Outcome.CANCELLED, "far")
    bench.asterisk.assert_clean()
    assert not complaints(caplog)


async def test_the_caller_hangs_up_while_the_brain_starts(bench: Bench) -> None:
    brain = ScriptedBrain()
    brain.gate.clear()
    _, running = bench.call_in(brain)
    await brain.reached.wait()
    bench.asterisk.hang_up(CALLER)
    assert (await ended(running)).by == "far"
    assert not brain.is_open
    bench.asterisk.assert_clean()


async def test_arrival_and_hang_up_in_one_breath(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """All events of a short call may be read before its task runs for the first time."""
    asterisk = bench.asterisk
    asterisk.caller_arrives(CALLER, app="bot")
    asterisk.hang_up(CALLER)
    await until(lambda: len(bench.events) == 4)
    call = bench.make(ScriptedBrain())
    for event in bench.events[1:]:  # the first, StasisStart, makes somebody construct the call
        call.push_event(event)
    ending = await ended(asyncio.create_task(call.run()))
    assert (ending.outcome, ending.by) == (Outcome.CANCELLED, "far")
    asterisk.assert_clean()
    assert not complaints(caplog)
    assert not asterisk.asked("POST", "/answer")


async def test_told_to_hang_up_before_it_runs(bench: Bench) -> None:
    bench.asterisk.caller_arrives(CALLER, app="bot")
    call = bench.make(ScriptedBrain())
    call.hang_up("stopping")
    assert await ended(asyncio.create_task(call.run())) == Ending(Outcome.CANCELLED, "us", "stopping")
    bench.asterisk.assert_clean()


# --- Asterisk refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 409, 500])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_refused_step_returns_the_caller_to_the_dialplan(
    bench: Bench, stage: str, status: int
) -> None:
    method, prefix = STAGES[stage]
    bench.asterisk.script(method, prefix, status=status, body=REFUSED)
    brain = ScriptedBrain()
    _, running = bench.call_in(brain)
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (Outcome.FAILED, "asterisk")
    assert "a scripted refusal" in ending.detail
    assert bench.handed_back == "failed"
    bench.asterisk.assert_clean(CALLER)
    assert not brain.reached.is_set()


@pytest.mark.parametrize("stage", STAGES)
async def test_a_lost_reply_leaves_nothing(bench: Bench, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step was carried out, but all we get is an error: what it made is taken down."""
    method, prefix = STAGES[stage]
    bench.asterisk.script(method, prefix, status=500, body=REFUSED, carry_out_first=True)
    _, running = bench.call_in(ScriptedBrain())
    assert (await ended(running)).outcome is Outcome.FAILED
    assert bench.handed_back == "failed"
    bench.asterisk.assert_clean(CALLER)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests time out soon; to be named before `bench`."""
    monkeypatch.setattr(transport, "REQUEST_TIMEOUT_S", 0.15)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_reply_that_does_not_come_in_time(impatient: None, bench: Bench, stage: str) -> None:
    method, prefix = STAGES[stage]
    bench.asterisk.script(method, prefix, delay_s=0.3, carry_out_first=True)
    _, running = bench.call_in(ScriptedBrain())
    ending = await ended(running)
    assert ending.outcome is Outcome.FAILED
    assert "no answer from" in ending.detail
    assert bench.handed_back == "failed"
    bench.asterisk.assert_clean(CALLER)


async def test_a_caller_who_cannot_be_handed_back_is_hung_up(bench: Bench) -> None:
    bench.asterisk.script("POST", "/bridges", status=500, body=REFUSED)
    bench.asterisk.script("POST", f"/channels/{CALLER}/variable", status=500, body=REFUSED)
    _, running = bench.call_in(ScriptedBrain())
    assert (await ended(running)).outcome is Outcome.FAILED
    bench.asterisk.assert_clean()


async def test_no_rtp_port_is_left(bench: Bench) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        _, running = bench.call_in(ScriptedBrain(), rtp_ports=(port, port))
        ending = await ended(running)
    assert ending.outcome is Outcome.FAILED
    assert "RTP_PORTS" in ending.detail
    assert bench.handed_back == "failed"


async def test_who_is_gone_when_it_is_their_turn_gets_no_media_channel(bench: Bench) -> None:
    """One is opened at a time, and Asterisk may keep the call before them waiting."""
    held = bench.asterisk.hold(*STAGES["media"])
    bench.asterisk.caller_arrives("1700000000.9", app="bot")
    opening = bench.client.rest.external_media("before", "127.0.0.1:40000", beside="1700000000.9")
    before = asyncio.create_task(opening)
    await held.reached.wait()
    _, running = bench.call_in(ScriptedBrain())
    await until(lambda: bool(bench.asterisk.bridges))
    bench.asterisk.hang_up(CALLER)
    await until(lambda: not bench.asterisk.bridges)
    held.go.set()
    await before
    assert (await ended(running)).outcome is Outcome.CANCELLED
    assert len(bench.asterisk.asked("POST", "/externalMedia")) == 1
    for channel_id in ("before", "1700000000.9"):
        await bench.client.rest.hangup(channel_id)


async def test_the_media_channel_never_enters(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "SETUP_TIMEOUT_S", 0.1)
    where = {"UNICASTRTP_LOCAL_ADDRESS": "127.0.0.1", "UNICASTRTP_LOCAL_PORT": "9"}
    bench.asterisk.script("POST", STAGES["media"][1], status=200, body=json.dumps({"channelvars": where}))
    _, running = bench.call_in(ScriptedBrain())
    assert await ended(running) == Ending(Outcome.FAILED, "asterisk", "the set-up took too long")
    assert bench.handed_back == "failed"


async def test_the_media_channel_vanishes(bench: Bench) -> None:
    call, running = bench.call_in(ScriptedBrain())
    await bench.talking()
    bench.asterisk.vanish(call.media_id)
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (Outcome.FAILED, "asterisk")
    assert bench.handed_back == "failed"


async def test_somebody_deletes_the_bridge(bench: Bench) -> None:
    call, running = bench.call_in(ScriptedBrain())
    await bench.talking()
    await bench.client.rest.delete_bridge(call.bridge_id)
    assert (await ended(running)).outcome is Outcome.FAILED
    assert bench.handed_back == "failed"


async def test_a_caller_presses_the_key_for_a_person(bench: Bench) -> None:
    brain = ScriptedBrain()
    _, running = bench.call_in(brain, handover_keys="0#")
    await bench.talking()
    bench.asterisk.press(CALLER, "5")
    bench.asterisk.press(CALLER, "#")
    assert await ended(running) == Ending(Outcome.ANSWERED, "us", "the caller pressed #")
    assert bench.handed_back == "handover"
    assert not brain.is_open


async def test_a_callee_who_presses_keys_stays_in_the_conversation(bench: Bench) -> None:
    call, running = bench.call_out(ScriptedBrain(), handover_keys="0")
    await until(lambda: call.far_id in bench.asterisk.channels)
    bench.asterisk.answers(call.far_id)
    await bench.talking()
    bench.asterisk.press(call.far_id, "0")
    await asyncio.sleep(0.1)
    assert not running.done()
    bench.asterisk.hang_up(call.far_id)
    assert (await ended(running)).by == "far"


async def test_the_longest_call(bench: Bench) -> None:
    brain = ScriptedBrain()
    _, running = bench.call_in(brain, max_call_s=0.2)
    ending = await ended(running)
    assert ending == Ending(Outcome.ANSWERED, "us", "the limit of 0.2 s was reached")
    assert not brain.is_open
    bench.asterisk.assert_clean()


@pytest.mark.parametrize("stage", STAGES)
async def test_we_hang_up_during_set_up(bench: Bench, stage: str) -> None:
    held = bench.asterisk.hold(*STAGES[stage])
    call, running = bench.call_in(ScriptedBrain())
    await held.reached.wait()
    call.hang_up("stopping")
    held.go.set()
    assert await ended(running) == Ending(Outcome.CANCELLED, "us", "stopping")
    bench.asterisk.assert_clean()


async def test_hanging_up_twice_and_after_the_end_changes_nothing(bench: Bench) -> None:
    call, running = bench.call_in(ScriptedBrain())
    await bench.talking()
    call.hang_up("first")
    call.hang_up("second")
    assert await ended(running) == Ending(Outcome.ANSWERED, "us", "first")
    call.hang_up("third")
    assert sum(isinstance(what, Ended) for what in bench.seen) == 1


# --- outbound ----------------------------------------------------------------------------------------


async def test_an_outbound_call(bench: Bench) -> None:
    call, running = bench.call_out(Echo(), ring_timeout_s=30, max_call_s=600)
    await until(lambda: call.far_id in bench.asterisk.channels)
    asked = bench.asterisk.asked("POST", "/channels")[0]
    assert (asked["endpoint"], asked["callerId"], asked["timeout"]) == (
        *("PJSIP/100@trunk", "Bot <200>"),
        "35",
    )
    assert bench.asterisk.channels[call.far_id].variables == {"TIMEOUT(absolute)": "660"}
    bench.asterisk.rings(call.far_id)
    await until(lambda: bench.stages == ["dialing", "ringing"])
    assert not bench.asterisk.bridges, "nothing is made before somebody answers"
    bench.asterisk.answers(call.far_id)
    await bench.talking()
    assert bench.asterisk.bridges == {call.bridge_id: [call.far_id, call.media_id]}
    assert bench.stages == ["dialing", "ringing", "answered", "talking"]
    bench.asterisk.hang_up(call.far_id)
    assert (await ended(running)).outcome is Outcome.ANSWERED
    bench.asterisk.assert_clean()


@pytest.mark.parametrize(
    ("rings", "outcome"), [(True, Outcome.NO_ANSWER), (False, Outcome.UNREACHABLE)], ids=["rings", "silent"]
)
async def test_nobody_answers(bench: Bench, rings: bool, outcome: Outcome) -> None:
    call, running = bench.call_out(ScriptedBrain(), ring_timeout_s=0.2)
    await until(lambda: call.far_id in bench.asterisk.channels)
    if rings:
        bench.asterisk.rings(call.far_id)
    ending = await ended(running)
    assert (ending.outcome, ending.by) == (outcome, "us")
    bench.asterisk.assert_clean()


@pytest.mark.parametrize(
    ("sip_status", "cause", "dialstatus", "outcome"),
    [
        (486, 17, "BUSY", Outcome.BUSY),
        (603, 21, "NOANSWER", Outcome.REJECTED),
        (404, 1, "NOANSWER", Outcome.UNREACHABLE),
        (503, 34, "CONGESTION", Outcome.CONGESTION),
    ],
)
async def test_the_callee_refuses(
    bench: Bench, sip_status: int, cause: int, dialstatus: str, outcome: Outcome
) -> None:
    call, running = bench.call_out(ScriptedBrain())
    await until(lambda: call.far_id in bench.asterisk.channels)
    bench.asterisk.rings(call.far_id)
    bench.asterisk.refuses(call.far_id, sip_status, cause, dialstatus)
    assert (await ended(running)).outcome is outcome
    bench.asterisk.assert_clean()


async def test_an_endpoint_that_asterisk_does_not_know(bench: Bench) -> None:
    bench.asterisk.unknown_endpoints.add("PJSIP/100@trunk")
    _, running = bench.call_out(ScriptedBrain())
    assert (await ended(running)).outcome is Outcome.UNREACHABLE


OUTBOUND_STAGES = {
    "originate": ("POST", "/channels"),
    **{stage: STAGES[stage] for stage in ("bridge", "media", "join")},
}


@pytest.mark.parametrize("stage", OUTBOUND_STAGES)
async def test_we_hang_up_while_a_step_is_under_way(bench: Bench, stage: str) -> None:
    held = bench.asterisk.hold(*OUTBOUND_STAGES[stage])
    call, running = bench.call_out(ScriptedBrain())
    if stage != "originate":
        await until(lambda: call.far_id in bench.asterisk.channels)
        bench.asterisk.answers(call.far_id)
    await held.reached.wait()
    call.hang_up("Ctrl-C")
    held.go.set()
    outcome = Outcome.CANCELLED if stage == "originate" else Outcome.ANSWERED
    assert await ended(running) == Ending(outcome, "us", "Ctrl-C")
    bench.asterisk.assert_clean()


@pytest.mark.parametrize("stage", ["dialing", "ringing", "talking"])
async def test_we_hang_up_while_waiting_or_talking(bench: Bench, stage: str) -> None:
    call, running = bench.call_out(ScriptedBrain())
    await until(lambda: call.far_id in bench.asterisk.channels)
    if stage != "dialing":
        bench.asterisk.rings(call.far_id)
    if stage == "talking":
        bench.asterisk.answers(call.far_id)
    await until(lambda: stage in bench.stages)
    call.hang_up("Ctrl-C")
    outcome = Outcome.ANSWERED if stage == "talking" else Outcome.CANCELLED
    assert await ended(running) == Ending(outcome, "us", "Ctrl-C")
    bench.asterisk.assert_clean()


async def test_told_to_hang_up_before_it_dials(bench: Bench) -> None:
    call, running = bench.call_out(ScriptedBrain())
    call.hang_up("Ctrl-C")
    assert await ended(running) == Ending(Outcome.CANCELLED, "us", "Ctrl-C")
    assert not bench.asterisk.asked("POST", "/channels")


@pytest.mark.parametrize("stage", ["bridge", "media", "join"])
async def test_the_callee_hangs_up_during_set_up(bench: Bench, stage: str) -> None:
    held = bench.asterisk.hold(*OUTBOUND_STAGES[stage])
    call, running = bench.call_out(ScriptedBrain())
    await until(lambda: call.far_id in bench.asterisk.channels)
    bench.asterisk.answers(call.far_id)
    await held.reached.wait()
    bench.asterisk.hang_up(call.far_id)
    held.go.set()
    assert (await ended(running)).by == "far"
    bench.asterisk.assert_clean()


# --- audio -------------------------------------------------------------------------------------------


async def test_frames_flow_from_the_first_moment(bench: Bench) -> None:
    """Before the caller is answered, one every 20 ms: Asterisk learns our address, and no word is cut off."""
    held = bench.asterisk.hold(*STAGES["answer"])
    call, running = bench.call_in(ScriptedBrain())
    await held.reached.wait()
    media = media_of(bench.asterisk, call.media_id)
    begun_at = asyncio.get_running_loop().time()
    await until(lambda: len(media.hear()) >= 10)
    assert 0.1 < asyncio.get_running_loop().time() - begun_at < 1
    held.go.set()
    await bench.talking()
    call.hang_up("enough")
    await ended(running)
    numbers = [arrival.sequence_number for arrival in media.arrivals]
    assert numbers == [(numbers[0] + i) % 2**16 for i in range(len(numbers))]
    assert {arrival.payload for arrival in media.arrivals} == {bytes(320)}


async def test_only_asterisk_is_heard(bench: Bench) -> None:
    brain = ScriptedBrain()
    call, running = bench.call_in(brain)
    await bench.talking()
    media = media_of(bench.asterisk, call.media_id)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(10):
            stranger.sendto(RtpPeer(ssrc=7).packet(frame(9000)), media.bot)
            stranger.sendto(b"noise", media.bot)
            media.say(frame(5000))
            await asyncio.sleep(0.02)
    await until(lambda: frame(5000) in brain.frames)
    assert frame(9000) not in brain.frames
    call.hang_up("enough")
    await ended(running)


async def test_silence_of_the_caller_is_heard_as_silence(bench: Bench) -> None:
    """Asterisk sends nothing at all then; for the brain time goes on."""
    brain = ScriptedBrain()
    call, running = bench.call_in(brain)
    await until(lambda: len(brain.frames) >= 10)
    call.hang_up("enough")
    await ended(running)
    assert set(brain.frames) == {bytes(320)}
    heard = len(brain.frames)
    await asyncio.sleep(0.05)
    assert len(brain.frames) == heard


# --- the record --------------------------------------------------------------------------------------


def recorder_in(directory: Path, **settings: Any) -> OpenRecorder:
    return lambda started_at, on_failed: Recorder(
        directory,
        settings=RecorderSettings(**settings),
        started_at=started_at,
        about={"call": "1"},
        on_failed=on_failed,
    )


async def log_of(call: Call, directory: Path) -> list[dict[str, Any]]:
    """What was recorded, once it is."""
    await until(lambda: call.recording.written)
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


def stereo(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with wave.open(str(path)) as sound:
        assert (sound.getnchannels(), sound.getframerate()) == (2, 8000)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").reshape(-1, 2)
    return samples[:, 0], samples[:, 1]


async def test_both_sides_are_recorded_aligned(bench: Bench, tmp_path: Path) -> None:
    call, running = bench.call_in(Echo(), open_recorder=recorder_in(tmp_path / "call"))
    await bench.talking()
    media = media_of(bench.asterisk, call.media_id)
    begun_at = asyncio.get_running_loop().time()
    for level in [0] * 15 + [5000] * 10 + [0] * 15:
        media.say(frame(level))
        await asyncio.sleep(0.02)
    lasted_s = asyncio.get_running_loop().time() - begun_at
    bench.asterisk.hang_up(CALLER)
    await ended(running)
    log = await log_of(call, tmp_path / "call")
    caller, bot = stereo(tmp_path / "call" / "full_call.wav")
    assert lasted_s - 0.5 < len(caller) / 8000 < lasted_s + 1
    onset_caller, onset_bot = int(np.argmax(caller == 5000)), int(np.argmax(bot == 5000))
    assert onset_caller > 0 and onset_bot > 0, "both sides speak"
    assert 0 <= (onset_bot - onset_caller) / 8000 < 0.25, "the echo follows at once"
    assert log[-1]["event"] == "ended"
    assert log[-1]["outcome"] == "answered"


async def test_a_directory_that_cannot_be_made_costs_only_the_record(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    brain = ScriptedBrain()
    call, running = bench.call_in(brain, open_recorder=recorder_in(tmp_path / "file" / "call"))
    await until(lambda: len(brain.frames) > 3)
    call.hang_up("enough")
    assert (await ended(running)).outcome is Outcome.ANSWERED
    assert len(complaints(caplog)) == 1
    assert "not recorded" in complaints(caplog)[0]
    failed = next(what for what in bench.seen if isinstance(what, RecordingFailed))
    assert "exists" in failed.reason and call.recording.state == "failed"


async def test_a_disk_that_does_not_answer_keeps_nobody_waiting(bench: Bench, tmp_path: Path) -> None:
    """Neither the caller for the bot nor the line for the next caller; what is late is written all the same."""
    reached, go = threading.Event(), threading.Event()

    def seal(piece: bytes) -> bytes:
        reached.set()
        assert go.wait(30)
        return piece

    brain = ScriptedBrain()
    call, running = bench.call_in(brain, open_recorder=recorder_in(tmp_path / "call", seal=seal))
    await until(reached.is_set)
    await until(lambda: len(brain.frames) > 3)
    bench.asterisk.hang_up(CALLER)
    assert (await ended(running)).by == "far"
    assert not brain.is_open and not call.recording.written
    go.set()
    await until(lambda: call.recording.written)
    assert b'"event": "ended"' in (tmp_path / "call" / "events.jsonl.age").read_bytes()


async def test_a_recording_that_fails_twice_is_told_of_once(bench: Bench, tmp_path: Path) -> None:
    go = threading.Event()

    def seal(piece: bytes) -> bytes:
        assert go.wait(30)
        raise OSError(5, "Input/output error")

    call, running = bench.call_in(Echo(), open_recorder=recorder_in(tmp_path / "call", seal=seal))
    await bench.talking()
    for _ in range(MAX_FRAMES + 1):
        call.recording.push_caller(frame(1), asyncio.get_running_loop().time())
    await until(lambda: any(isinstance(what, RecordingFailed) for what in bench.seen))
    go.set()
    bench.asterisk.hang_up(CALLER)
    await ended(running)
    await until(lambda: call.recording.written)
    await asyncio.sleep(0)
    (failed,) = [what for what in bench.seen if isinstance(what, RecordingFailed)]
    assert "does not answer" in failed.reason


async def test_the_words_of_a_pause_are_nobody_s(bench: Bench, tmp_path: Path) -> None:
    """Neither the record's nor those of who looks on, though they are understood when the pause is over."""
    brain = ScriptedBrain()
    call, running = bench.call_in(brain, open_recorder=recorder_in(tmp_path / "call"))
    await until(lambda: len(brain.frames) > 3)
    now = asyncio.get_running_loop().time
    assert call.recording.pause(True) and call.recording.state == "paused"
    onset_at = now()
    await asyncio.sleep(0.1)
    brain.report(ports.BotSaid(0, "The operator says 4111.", "The operator says 4111.", False, b"", onset_at))
    ended_at = now()
    call.recording.pause(False)
    await asyncio.sleep(0.7)
    brain.report(ports.CallerSpeechStarted(now(), now()))
    brain.report(ports.CallerSaid(1, "4111 1111", "en", b"12", onset_at, ended_at))
    brain.report(ports.CallerSaid(2, "thank you", "en", b"12", now(), now()))
    bench.asterisk.hang_up(CALLER)
    await ended(running)
    log = await log_of(call, tmp_path / "call")
    for told in (repr(bench.seen), repr(log)):
        assert "4111" not in told and "thank you" in told and told.count("[not recorded]") >= 2


async def test_a_call_that_nobody_answers_leaves_its_end(bench: Bench, tmp_path: Path) -> None:
    call, running = bench.call_out(
        ScriptedBrain(), ring_timeout_s=0.2, open_recorder=recorder_in(tmp_path / "call")
    )
    ending = await ended(running)
    log = await log_of(call, tmp_path / "call")
    assert [event["event"] for event in log] == ["call", "ended"]
    assert (log[1]["outcome"], log[1]["reason"]) == (str(ending.outcome), str(ending))
    assert [path.name for path in (tmp_path / "call").iterdir()] == ["events.jsonl"]


async def test_an_observer_that_fails_disturbs_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    brain = ScriptedBrain()
    call, running = bench.call_in(brain)

    def fail(what: object) -> None:
        raise RuntimeError("a fault of ours")

    call.observers = (fail, *call.observers)
    await until(lambda: len(brain.frames) > 0)
    brain.report(ports.EngineFailed(1, "chat", "no answer", permanent=False))
    bench.asterisk.hang_up(CALLER)
    assert (await ended(running)).outcome is Outcome.ANSWERED
    assert isinstance(bench.seen[-1], Ended), "the others are told all the same"
    assert "a fault of ours" in caplog.text


# --- one-way audio -----------------------------------------------------------------------------------


@pytest.mark.parametrize("speaks", [True, False])
async def test_a_call_in_which_nothing_came_from_the_caller_is_named(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    monkeypatch.setattr(line, "UNHEARD_S", 0.05)
    call, running = bench.call_in(ScriptedBrain())
    await bench.talking()
    if speaks:
        media_of(bench.asterisk, call.media_id).say(frame(1000))
    await asyncio.sleep(0.1)
    bench.asterisk.hang_up(CALLER)
    await ended(running)
    over = next(what for what in bench.seen if isinstance(what, Ended))
    assert over.unheard is not speaks
    warned = [r for r in caplog.records if r.levelname == "WARNING" and "no audio came from the" in r.message]
    assert len(warned) == (0 if speaks else 1)


async def test_a_short_call_is_not_called_unheard(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    _, running = bench.call_in(ScriptedBrain())
    await bench.talking()
    bench.asterisk.hang_up(CALLER)
    await ended(running)
    assert not any(what.unheard for what in bench.seen if isinstance(what, Ended))
    assert "no audio came" not in caplog.text


# --- brains that fail --------------------------------------------------------------------------------


async def test_a_brain_that_gives_up(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    brain = ScriptedBrain()
    _, running = bench.call_in(brain)
    await until(lambda: len(brain.frames) > 0)
    failed = ports.EngineFailed(1, "chat", "no answer", permanent=False)
    brain.report(failed)
    brain.report(ports.GaveUp("chat failed three times"))
    assert await ended(running) == Ending(Outcome.FAILED, "us", "chat failed three times")
    assert bench.handed_back == "failed"
    assert failed in bench.seen
    assert any("chat failed: no answer" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("policy", "result", "target"),
    [("dialplan", "failed", None), ("hangup", None, None), ("700", "transfer", "700")],
)
async def test_what_becomes_of_a_caller_whom_the_bot_gives_up_is_the_operators_choice(
    bench: Bench, policy: str, result: str | None, target: str | None
) -> None:
    brain = ScriptedBrain()
    _, running = bench.call_in(brain, on_failure=policy)
    await until(lambda: len(brain.frames) > 0)
    brain.report(ports.GaveUp("chat: `no` answer\n${SHELL(x)}"))
    assert await ended(running) == Ending(Outcome.FAILED, "us", "chat: `no` answer\n${SHELL(x)}")
    if result is None:
        assert CALLER not in bench.asterisk.channels
    else:
        assert bench.handed_back == result
        variables = bench.asterisk.channels[CALLER].variables
        assert variables.get("ARI_APP_TRANSFER") == target
        assert variables["ARI_APP_REASON"] == "chat: no answer SHELL x"


async def test_a_conversation_that_is_concluded_is_hung_up(bench: Bench) -> None:
    brain = ScriptedBrain()
    _, running = bench.call_in(brain)
    await until(lambda: len(brain.frames) > 0)
    brain.report(ports.Concluded("nobody spoke"))
    assert await ended(running) == Ending(Outcome.ANSWERED, "us", "nobody spoke")
    assert CALLER not in bench.asterisk.channels


async def test_who_holds_the_call_is_told_to_those_who_count_the_silence(bench: Bench) -> None:
    brain = ScriptedBrain()
    call, running = bench.call_in(brain)
    held: list[bool] = []
    call.on_hold = held.append
    await until(lambda: len(brain.frames) > 0)
    for kind in ("ChannelHold", "ChannelHold", "ChannelUnhold", "ChannelUnhold"):
        call.push_event(parse_event(json.dumps({"type": kind, "channel": {"id": CALLER}})))
        call.push_event(parse_event(json.dumps({"type": kind, "channel": {"id": "somebody else"}})))
    assert held == [True, False]
    bench.asterisk.hang_up(CALLER)
    await ended(running)


async def test_a_fault_of_one_brain_does_not_touch_another_call(bench: Bench) -> None:
    """Both legs are driven by one sender."""
    faulty = ScriptedBrain(push_audio=RuntimeError("a fault of ours"), close=RuntimeError("another"))
    _, running = bench.call_in(faulty)
    await until(lambda: bool(faulty.frames))
    brain = ScriptedBrain()
    other, other_running = bench.call_out(brain)
    await until(lambda: other.far_id in bench.asterisk.channels)
    bench.asterisk.answers(other.far_id)
    await until(lambda: bool(brain.frames))
    bench.asterisk.hang_up(CALLER)
    await ended(running)
    media = media_of(bench.asterisk, other.media_id)
    heard, sent = len(brain.frames), len(media.hear())
    await until(lambda: len(brain.frames) > heard + 5 and len(media.hear()) > sent + 5)
    other.hang_up("enough")
    assert (await ended(other_running)).outcome is Outcome.ANSWERED


async def test_a_brain_that_cannot_start(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    brain = ScriptedBrain(start=RuntimeError("a fault of ours"))
    _, running = bench.call_in(brain)
    assert await ended(running) == Ending(Outcome.FAILED, "us", "a fault of ours")
    assert bench.handed_back == "failed"
    assert not brain.is_open
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


async def test_a_brain_that_stumbles_over_every_frame(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; the call goes on, and is recorded."""
    brain = ScriptedBrain(push_audio=RuntimeError("a fault of ours"))
    call, running = bench.call_in(brain, open_recorder=recorder_in(tmp_path / "call"))
    await bench.talking()
    media = media_of(bench.asterisk, call.media_id)
    for _ in range(10):
        media.say(frame(5000))
        await asyncio.sleep(0.02)
    bench.asterisk.hang_up(CALLER)
    assert (await ended(running)).outcome is Outcome.ANSWERED
    assert len(brain.frames) > 1
    assert len(complaints(caplog)) == 1
    await until(lambda: call.recording.written)
    caller, _ = stereo(tmp_path / "call" / "full_call.wav")
    assert 5000 in caller


async def test_a_brain_that_fails_to_close(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    brain = ScriptedBrain(close=RuntimeError("a fault of ours"))
    call, running = bench.call_in(brain, open_recorder=recorder_in(tmp_path / "call"))
    await brain.reached.wait()
    bench.asterisk.hang_up(CALLER)
    assert (await ended(running)).outcome is Outcome.ANSWERED
    bench.asterisk.assert_clean()
    assert complaints(caplog)
    assert (await log_of(call, tmp_path / "call"))[-1]["event"] == "ended"


# --- cancelled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
async def test_cancelled_during_set_up(bench: Bench, stage: str) -> None:
    method, prefix = STAGES[stage]
    bench.asterisk.script(method, prefix, delay_s=0.3, carry_out_first=True)
    _, running = bench.call_in(ScriptedBrain())
    await until(lambda: any(p.startswith(prefix) for m, p, *_ in bench.asterisk.requests if m == method))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended(running)
    bench.asterisk.assert_clean()


async def test_cancelled_while_talking(bench: Bench, tmp_path: Path) -> None:
    brain = ScriptedBrain()
    call, running = bench.call_in(brain, open_recorder=recorder_in(tmp_path / "call"))
    await until(lambda: len(brain.frames) > 0)
    media = media_of(bench.asterisk, call.media_id)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended(running)
    bench.asterisk.assert_clean()
    assert not brain.is_open
    await until(lambda: is_free(media.bot))


async def test_cancelled_twice(bench: Bench) -> None:
    """Whoever is in such a hurry waits for no reply of Asterisk; what is ours is freed at once."""
    brain = ScriptedBrain()
    call, running = bench.call_in(brain)
    await until(lambda: len(brain.frames) > 0)
    media = media_of(bench.asterisk, call.media_id)
    held = bench.asterisk.hold("DELETE", "/channels")
    running.cancel()
    await held.reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended(running)
    assert not brain.is_open
    await until(lambda: is_free(media.bot))
    held.go.set()
    await bench.sweep()


async def test_a_flood_of_news_ends_the_call(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    call, running = bench.call_in(ScriptedBrain())
    await bench.talking()
    news = next(e for e in bench.events if isinstance(e, StasisStart) and e.channel_id == call.media_id)
    for _ in range(call_module.MAX_FACTS + 1):
        call.push_event(news)
    with pytest.raises(asyncio.CancelledError):
        await ended(running)
    assert complaints(caplog) == ["256 facts wait: the call is stuck and is ended"]
    bench.asterisk.assert_clean()


@pytest.mark.parametrize("extension", ["", "100,1)", '1" = "1', "${SHELL(id)}", "100\n", "1" * 33])
async def test_a_transfer_goes_to_an_extension_and_is_nothing_that_the_dialplan_carries_out(
    bench: Bench, extension: str
) -> None:
    call = bench.make(Echo())
    with pytest.raises(ValueError, match="not an extension"):
        call.transfer(extension)

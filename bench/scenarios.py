"""What is measured: each scenario starts its own application, places its calls and returns samples."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ari_app.demo.asterisk_prefix import Prefix
from bench import clicks, speech
from bench.engine import PROFILES
from bench.parts import costs_us
from bench.rig import Batch, Outcome, Rig, free_ports, rig

GREETING = "Hello."
SILENT = {"APOLOGY": "", "HOLD": "", "GOODBYE": ""}
"""No local sentences."""
STALLS_MS = (10, 25, 100)
STALL_EVERY_S = 1.0


@dataclass
class Result:
    """One line of the report."""

    scenario: str
    parameters: dict[str, Any]
    samples: dict[str, list[float]] = field(default_factory=dict)
    """By measure; the unit is the end of its name."""
    figures: dict[str, float] = field(default_factory=dict)
    """Counts and costs."""


@dataclass(frozen=True)
class Bench:
    """What all scenarios share."""

    asterisk: Prefix
    sipp: Prefix
    voices: Sequence[bytes]
    interruption: bytes
    quick: bool
    minutes: float = 10
    """A call that is held for its recording lasts so long."""

    async def run(self, rig: Rig, batch: Batch) -> Outcome:
        return await rig.run(batch, self.voices, [self.interruption])


async def floor(bench: Bench) -> AsyncIterator[Result]:
    """The echo: what Asterisk, the sockets and the pacing of both sides cost, without a conversation."""
    async with rig(bench.asterisk, bench.sipp, profile="instant", settings={"MODE": "echo"}) as parts:
        turns = 20 if bench.quick else 100
        outcome = await bench.run(parts, Batch("echo", 1, turns, turns * 0.8 + 3))
    yield Result(
        "floor",
        {},
        {"round_trip_ms": outcome.notes("round_trip_ms")},
        {"failed": outcome.failures("round_trip_ms")},
    )


async def greeting(bench: Bench) -> AsyncIterator[Result]:
    """From the answer (SIP 200) to the first sample of the greeting."""
    for profile in ("fast",) if bench.quick else ("instant", "fast", "typical"):
        async with rig(bench.asterisk, bench.sipp, profile=profile, settings={"GREETING": GREETING}) as parts:
            outcome = await bench.run(parts, Batch("listen", 4 if bench.quick else 20, 1, 4, per_second=2))
        delays = [
            (note["first_sound_at"] - answered) * 1000
            for call, answered in zip(outcome.calls, outcome.answered_at, strict=True)
            for note in call["notes"]
        ]
        yield Result(
            "greeting",
            {"engine": profile},
            {"first_sound_ms": delays},
            {"failed": len(outcome.calls) - len(delays)},
        )


VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "ari_app": (("ari_app", "serve"), {}),
    "without speculation": (("ari_app", "serve"), {"SPECULATE_AFTER_MS": "0"}),
    "sequential": (("bench.sequential",), {}),
}
"""Module and settings."""
SPECULATE_AFTER_MS = 240
"""The application's default."""


async def gap(bench: Bench) -> AsyncIterator[Result]:
    """From the caller's last speech packet to the bot's first, and what of it is our own."""
    windows = (500,) if bench.quick else (300, 500, 1000)
    profiles = ("fast",) if bench.quick else ("instant", "fast", "typical")
    for profile in profiles:
        for window_ms in windows:
            yield await _gap(bench, profile, window_ms, "ari_app")


async def baselines(bench: Bench) -> AsyncIterator[Result]:
    """The same gap without what hides the engines' delay."""
    window_ms, profile = (500, "fast") if bench.quick else (1000, "typical")
    for variant in VARIANTS:
        yield await _gap(bench, profile, window_ms, variant)


async def _gap(bench: Bench, profile: str, window_ms: int, variant: str) -> Result:
    calls, turns = (2, 3) if bench.quick else (5, 6)
    module, settings = VARIANTS[variant]
    settings = {"SILENCE_DURATION_MS": str(window_ms), "HOLD": "", **settings}
    async with rig(bench.asterisk, bench.sipp, profile=profile, settings=settings, module=module) as parts:
        outcome = await bench.run(parts, Batch("turns", calls, turns, 15.0 * turns, per_second=2))
    gaps = outcome.notes("gap_ms")
    samples = {"gap_ms": gaps}
    if variant == "ari_app":
        floor_ms = least_gap_ms(window_ms, PROFILES[profile].total_ms)
        samples["own_ms"] = [value - floor_ms for value in gaps]
    parameters = {"engine": profile, "window_ms": window_ms}
    if variant != "ari_app":
        parameters["variant"] = variant
    return Result("gap", parameters, samples, {"failed": outcome.failures("gap_ms")})


def least_gap_ms(window_ms: float, engine_ms: float) -> float:
    """What window and engine impose: work begins at the pause, the bot may speak when the window closes."""
    begins_ms = SPECULATE_AFTER_MS if window_ms > SPECULATE_AFTER_MS else window_ms
    return max(window_ms, begins_ms + engine_ms)


async def barge_in(bench: Bench) -> AsyncIterator[Result]:
    """From the caller's first packet over the bot to the bot's last."""
    settings = {"SILENCE_DURATION_MS": "500", "HOLD": ""}
    calls, turns = (1, 4) if bench.quick else (4, 6)
    async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings, long=True) as parts:
        outcome = await bench.run(parts, Batch("barge", calls, turns, 14.0 * turns, per_second=2))
    yield Result(
        "barge-in",
        {"engine": "fast"},
        {"stop_ms": outcome.notes("stop_ms")},
        {"failed": outcome.failures("stop_ms")},
    )


ECHOES = ((-10.0, 80.0), (-10.0, 200.0), (-15.0, 80.0), (-15.0, 200.0), (-20.0, 80.0), (-20.0, 200.0))
SPAN_MS = 80.0
"""An answer that lasts so much longer or shorter than the others of its run was interrupted: the engine speaks the same
sentence each time, rendered once for each run."""


async def echo(bench: Bench) -> AsyncIterator[Result]:
    """A line that returns the bot's own voice: does it interrupt itself? By the length of what it says."""
    settings = {"SILENCE_DURATION_MS": "500", "HOLD": ""}
    for db, delay_ms in ((None, 0.0), *(ECHOES[2:3] if bench.quick else ECHOES)):
        calls, turns = (2, 2) if bench.quick else (20, 5 if db == -15.0 else 2)
        batch = Batch("turns", calls, turns, 15.0 * turns, per_second=4, echo_db=db, echo_delay_ms=delay_ms)
        async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings, speaks=True) as parts:
            outcome = await bench.run(parts, batch)
        answers = outcome.notes("answer_ms")
        usual = statistics.median(answers)
        yield Result(
            "echo",
            {"echo": "none" if db is None else f"{db:g} dB after {delay_ms:g} ms"},
            {"answer_ms": answers, "gap_ms": outcome.notes("gap_ms")},
            {
                "turns": len(answers),
                "interrupted_itself": sum(abs(answer - usual) > SPAN_MS for answer in answers),
                "failed": outcome.failures("gap_ms"),
            },
        )


async def manners(bench: Bench) -> AsyncIterator[Result]:
    """What is said over the bot: does it fall silent, for how long, and does it go on or give way?"""
    backchannels = speech.clips(speech.BACKCHANNELS)
    interruptions = speech.clips(speech.INTERRUPTIONS)
    coughs = [speech.cough(seed) for seed in range(len(backchannels))]
    noises = [speech.line_noise(seed) for seed in range(len(backchannels))]
    known = await speech.understood(
        dict.fromkeys([*bench.voices, *backchannels, *interruptions, *coughs, *noises])
    )
    settings = {"SILENCE_DURATION_MS": "500", "HOLD": ""}
    for name, clips in (
        ("backchannels", backchannels),
        ("coughs", coughs),
        ("line noise", noises),
        ("interruptions", interruptions),
    ):
        calls = len(clips) * (1 if bench.quick else 5)
        batch = Batch("over", calls, 1, 30.0 + calls / 2, per_second=2, after_s=2.0)
        async with rig(
            bench.asterisk, bench.sipp, profile="fast", settings=settings, long=True, script=known
        ) as parts:
            outcome = await parts.run(batch, bench.voices, clips)
        notes = [note for call in outcome.calls for note in call["notes"] if "went_on" in note]
        yield Result(
            "manners",
            {"over the bot": name},
            {"stop_ms": outcome.notes("stop_ms"), "pause_ms": outcome.notes("pause_ms")},
            {
                "clips": len(notes),
                "paused_percent": 100 * sum(note["stop_ms"] is not None for note in notes) / len(notes),
                "gave_way_percent": 100 * sum(not note["went_on"] for note in notes) / len(notes),
                "failed": sum(not call["done"] for call in outcome.calls),
            },
        )


FINISHED = {
    "SILENCE_DURATION_MS": "1000",
    "FINISHED_SILENCE_MS": "500",
    "SPECULATE_AFTER_MS": "80",
    "HOLD": "",
}
"""Turn-taking by the words."""


async def endpointing(bench: Bench) -> AsyncIterator[Result]:
    """Turns that end when their words are complete: the gap, and who is cut off in a pause for thought."""
    complete = speech.clips(speech.COMPLETE)
    halves = [speech.paused(parts) for parts in speech.PAUSED]
    known = await speech.understood(dict.fromkeys([*complete, *(pcm for pair in halves for pcm in pair)]))
    for name, clips, calls in (
        ("complete", complete, 1),
        ("complete", complete, 50),
        ("pause of 700 ms", [whole for _, whole in halves], 20),
    ):
        turns = 1 if bench.quick else 5 if calls > 1 else 20
        if bench.quick and calls == 50:
            continue
        async with rig(bench.asterisk, bench.sipp, profile="fast", settings=FINISHED, script=known) as parts:
            batch = Batch("turns", calls, turns, 16.0 * turns, per_second=25)
            outcome = await parts.run(batch, clips, [bench.interruption])
            requests = await parts.engine_counts()
        cut_off = len(outcome.notes("cut_off"))
        turns = cut_off + len(outcome.notes("gap_ms"))
        yield Result(
            "endpointing",
            {"turns": name, "calls": calls},
            {"gap_ms": outcome.notes("gap_ms")},
            {
                "turns": turns,
                "cut_off_percent": 100 * cut_off / max(turns, 1),
                "failed": outcome.failures("gap_ms"),
                **{
                    f"{stage}_requests_per_turn": requests.get(stage, 0) / max(turns, 1)
                    for stage in ("stt", "chat", "tts")
                },
            },
        )


async def capacity(bench: Bench) -> AsyncIterator[Result]:
    """Many calls in conversation at once: steadiness of the sound, and what a call costs."""
    loads = (
        ((25, "energy"),)
        if bench.quick
        else (*((n, "energy") for n in (1, 25, 50, 100, 200)), (50, "neural"))
    )
    for calls, vad in loads:
        settings = {"SILENCE_DURATION_MS": "500", "HOLD": "", "VAD": vad}
        seconds = 20.0 if bench.quick else 40.0
        async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings) as parts:
            outcome = await bench.run(parts, Batch("turns", calls, 99, seconds, per_second=25))
        yield _loaded("capacity", {"calls": calls, "vad": vad}, outcome, calls * seconds)


async def endurance(bench: Bench) -> AsyncIterator[Result]:
    """Calls that begin at five a second and talk for minutes, and what they leave behind."""
    calls = 20 if bench.quick else 100
    seconds = bench.minutes * 60
    settings = {"SILENCE_DURATION_MS": "500", "HOLD": ""}
    async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings) as parts:
        outcome = await bench.run(parts, Batch("turns", calls, 10_000, seconds, per_second=5))
        left = await parts.left()
    parameters = {"calls": calls, "minutes": bench.minutes}
    result = _loaded("endurance", parameters, outcome, calls * seconds)
    result.figures |= {"left_" + name: count for name, count in left.items()}
    yield result


async def records(bench: Bench) -> AsyncIterator[Result]:
    """What it costs to keep every call's sound, words and events; by turns, because machines have bad minutes."""
    calls = 10 if bench.quick else 50
    for keep in ("no", "yes") * (1 if bench.quick else 3):
        settings = {"SILENCE_DURATION_MS": "500", "HOLD": "", "SAVE_RECORDINGS": keep}
        seconds = 20.0 if bench.quick else 40.0
        async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings) as parts:
            outcome = await bench.run(parts, Batch("turns", calls, 99, seconds, per_second=25))
        yield _loaded("records", {"calls": calls, "recorded": keep}, outcome, calls * seconds)


CALLERS = {
    "good clock": clicks.Caller(),
    "clock 200 ppm fast": clicks.Caller(clock_ppm=200),
    "clock 200 ppm slow": clicks.Caller(clock_ppm=-200),
    "first packet after 300 ms": clicks.Caller(starts_after_s=0.3),
    "sends no silence": clicks.Caller(spurt_frames=10),
}


async def alignment(bench: Bench) -> AsyncIterator[Result]:
    """Where clicks of both directions stand in the recording of a long call, against what the caller knows."""
    seconds = bench.minutes * 60
    with tempfile.TemporaryDirectory(prefix="ari_app-bench-") as kept:
        settings = {"MODE": "echo", "SAVE_RECORDINGS": "yes", "RECORDINGS_DIR": kept}
        async with rig(bench.asterisk, bench.sipp, profile="instant", settings=settings) as parts:
            ports = free_ports(len(CALLERS))
            plan = clicks.plan(list(CALLERS.values()), ports, seconds=seconds, every_s=2)
            calls, _ = await parts.hold("bench.clicks", plan, seconds + 30, per_second=1)
            folders = await parts.recordings(Path(kept), len(CALLERS))
        for kind, call, folder in zip(CALLERS, calls, folders, strict=True):
            found = clicks.alignment(folder / "full_call.wav", call["sent_at"], call["heard_at"])
            yield Result(
                "alignment",
                {"caller": kind, "minutes": bench.minutes},
                {
                    "echo_ms": found.echo_ms,
                    "round_trip_ms": found.round_trip_ms,
                    "beside_ms": found.beside_ms,
                },
                {
                    "clicks": len(found.echo_ms),
                    "lost": call["lost"],
                    **{f"{name}_drift_ms": value for name, value in found.drift_ms.items()},
                },
            )
    for mode in ("pipeline", "realtime"):
        yield await _recorded_gaps(bench, mode)


async def _recorded_gaps(bench: Bench, mode: str) -> Result:
    """The same for conversations: the gaps that the recording shows, against those on the wire."""
    turns = 4 if bench.quick else 20
    with tempfile.TemporaryDirectory(prefix="ari_app-bench-") as kept:
        settings = {"MODE": mode, "SILENCE_DURATION_MS": "500", "SAVE_RECORDINGS": "yes"} | SILENT
        settings["RECORDINGS_DIR"] = kept
        async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings) as parts:
            outcome = await bench.run(parts, Batch("turns", 1, turns, 15.0 * turns))
            (folder,) = await parts.recordings(Path(kept), 1)
        recorded, wire = clicks.gaps(folder / "full_call.wav"), outcome.notes("gap_ms")
    return Result(
        "alignment",
        {"mode": mode},
        {"gap_ms": wire, "beside_ms": [w - r for w, r in zip(wire, recorded, strict=False)]},
        {"failed": outcome.failures("gap_ms") + abs(len(wire) - len(recorded))},
    )


async def realtime(bench: Bench) -> AsyncIterator[Result]:
    """The same conversation over the Realtime API: one engine of the stages' delays together."""
    for calls, audio in ((10, "pcm"),) if bench.quick else ((1, "pcm"), (50, "pcm"), (50, "pcmu")):
        settings = {"MODE": "realtime", "SILENCE_DURATION_MS": "500", "OPENAI_RT_AUDIO": audio} | SILENT
        seconds = 20.0 if bench.quick else 40.0
        async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings) as parts:
            outcome = await bench.run(parts, Batch("turns", calls, 99, seconds, per_second=25))
        yield _loaded("realtime", {"calls": calls, "audio": audio}, outcome, calls * seconds)
    settings = {"MODE": "realtime", "SILENCE_DURATION_MS": "500"} | SILENT
    turns = 3 if bench.quick else 10
    async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings, long=True) as parts:
        outcome = await bench.run(parts, Batch("barge", 2, turns, 14.0 * turns, per_second=2))
    yield Result(
        "realtime",
        {"barge-in": "by the server"},
        {"stop_ms": outcome.notes("stop_ms")},
        {"failed": outcome.failures("stop_ms")},
    )


async def parts(bench: Bench) -> AsyncIterator[Result]:
    """What each part costs by itself, for 20 ms of audio."""
    yield Result("parts", {}, await asyncio.to_thread(costs_us), {})


async def stall(bench: Bench) -> AsyncIterator[Result]:
    """The application stands still for some milliseconds every second, as a busy machine makes it."""
    calls = 10
    for stall_ms in (25,) if bench.quick else STALLS_MS:
        settings = {"SILENCE_DURATION_MS": "500", "HOLD": ""}
        seconds = 15.0
        async with rig(bench.asterisk, bench.sipp, profile="fast", settings=settings, long=True) as parts:
            stopping = asyncio.create_task(_stop_and_go(parts.application_pid, stall_ms / 1000))
            try:
                outcome = await bench.run(parts, Batch("turns", calls, 99, seconds))
            finally:
                stopping.cancel()
                await asyncio.gather(stopping, return_exceptions=True)
                os.kill(parts.application_pid, signal.SIGCONT)
        yield _loaded("stall", {"calls": calls, "stall_ms": stall_ms}, outcome, calls * seconds)


async def _stop_and_go(pid: int, stall_s: float) -> None:
    while True:
        await asyncio.sleep(STALL_EVERY_S)
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(stall_s)
        os.kill(pid, signal.SIGCONT)


def _loaded(name: str, parameters: dict[str, Any], outcome: Outcome, call_seconds: float) -> Result:
    gaps = [gap_ms for call in outcome.calls for gap_ms in call["gaps_ms"]]
    figures: dict[str, float] = {
        "lost": sum(call["lost"] for call in outcome.calls),
        "late": sum(call["late"] for call in outcome.calls),
        "packets": sum(call["received"] for call in outcome.calls),
        "silent_turns": sum(
            note["gap_ms"] is None for call in outcome.calls for note in call["notes"] if "gap_ms" in note
        ),
    }
    for process, cpu_s in outcome.cpu_s.items():
        figures[f"{process}_cpu_percent_per_call"] = 100 * cpu_s / call_seconds
        figures[f"{process}_peak_mb"] = outcome.peak_rss_mb[process]
    return Result(name, parameters, {"packet_gap_ms": gaps, "gap_ms": outcome.notes("gap_ms")}, figures)


Scenario = Callable[[Bench], AsyncIterator[Result]]

SCENARIOS: dict[str, Scenario] = {
    "floor": floor,
    "greeting": greeting,
    "gap": gap,
    "baselines": baselines,
    "barge-in": barge_in,
    "echo": echo,
    "manners": manners,
    "endpointing": endpointing,
    "capacity": capacity,
    "stall": stall,
    "endurance": endurance,
    "records": records,
    "alignment": alignment,
    "realtime": realtime,
    "parts": parts,
}


def prepared_speech() -> tuple[list[bytes], bytes]:
    """What the callers say."""
    return speech.voices(), speech.interruption()

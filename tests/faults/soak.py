"""Many calls for long: some in conversation all the time, others short, one after the other. Nothing may grow.

./scripts/soak [--minutes 60] [--talking 20] [--per-second 3] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ari_app.demo.asterisk_prefix import ASTERISK, fetch
from ari_app.demo.measure import process_cost
from ari_app.demo.voice import utterance
from bench.arguments import count, positive
from bench.report import machine
from bench.speech import trimmed
from bench.stats import summarize
from tests.faults.lane import Lane, Session
from tests.faults.phone import Phone

SAMPLE_S = 10.0
SHORT_S = (0.0, 6.0)
LONG_S = (20.0, 180.0)
QUESTION = "What time do you open?"
NORMAL_QUANTILE = 1.96
"""A slope of no more than so many standard errors can't be told from zero; one below it is that of something let go."""
SETTLED_MINUTES = 30
"""In a shorter soak the caches are still filling."""
NOUGHT = (
    *(
        "ended_by_the_bot",
        "turns_without_an_answer",
        "packets_lost",
        "frames_not_sent",
    ),
    "faults_in_the_log",
)
METHOD = """\
Callers are raw SIP user agents on the same machine, each with RTP by the clock both ways, through a private Asterisk
22 to one `python -m ari_app serve` with an engine of fixed delays. `talking` of them hold conversations of 20 to 180
s, one after the other; others call `short_calls_per_second` times a second (exponential gaps) and hang up after 0 to
6 s. Frames not sent (passed over because they were late, or refused by the kernel), and frames of silence because
speech came too late, are the application's own count of all calls. Slopes: least squares over the samples of the last
hour, beside what each moment's calls hold; the standard error takes the likeness of neighbours into account.
"""


@dataclass
class Sample:
    """The two processes at one moment."""

    at_s: float
    calls: int
    rss_mb: float
    descriptors: int
    asterisk_rss_mb: float
    asterisk_descriptors: int


@dataclass
class Tally:
    """What the callers saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    dropped: int = 0
    """Calls that the other side ended."""
    silent: int = 0
    """Turns that nobody answered."""
    turns: int = 0
    packets: int = 0
    lost: int = 0
    gaps_ms: list[float] = field(default_factory=list)
    """The longest of each call."""
    active: int = 0

    def close(self, phone: Phone) -> None:
        """A call is over."""
        hearing = phone.hearing
        self.packets += len(hearing.times)
        self.lost += hearing.lost
        if gaps := hearing.gaps_ms(0.0):
            self.gaps_ms.append(round(max(gaps), 1))


class Soak:
    """All callers of one run."""

    def __init__(self, lane: Lane, question: bytes, seed: int) -> None:
        self._lane = lane
        self._question = question
        self._chance = random.Random(seed)
        self.tally = Tally()
        self.over = False
        """Nobody calls any more; who talks finishes the turn and hangs up."""

    async def short_call(self) -> None:
        """Call, listen for a random time, hang up."""
        async with self._lane.phone() as phone:
            if await self._dial(phone):
                await asyncio.sleep(self._chance.uniform(*SHORT_S))
                self._leave(phone)

    async def talk(self) -> None:
        """One long call after the other, each a conversation of random length."""
        loop = asyncio.get_running_loop()
        while not self.over:
            until = loop.time() + self._chance.uniform(*LONG_S)
            async with self._lane.phone() as phone:
                if not await self._dial(phone):
                    await asyncio.sleep(1)
                    continue
                await asyncio.sleep(3)
                while loop.time() < until and not (phone.ended.is_set() or self.over):
                    said_at = await phone.say(self._question)
                    await asyncio.sleep(5 + self._chance.random())
                    self.tally.turns += 1
                    self.tally.silent += phone.hearing.first_sound_after(said_at) is None
                self._leave(phone)

    async def _dial(self, phone: Phone) -> bool:
        try:
            status = await phone.dial(self._lane.asterisk.bot_extension)
        except TimeoutError:
            status = 408
        self.tally.statuses[status] += 1
        self.tally.active += status == 200
        return status == 200

    def _leave(self, phone: Phone) -> None:
        self.tally.active -= 1
        if phone.ended.is_set():
            self.tally.dropped += 1
        else:
            phone.hang_up()
        self.tally.close(phone)


def rss_mb(pid: int) -> float:
    """Resident memory now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope(times_s: list[float], calls: list[int], values: list[float]) -> tuple[float, float]:
    """Change per hour beside what the calls of each moment hold, and its standard error.

    Least squares; the error takes the likeness of neighbours into account.
    """
    hours, y = np.array(times_s) / 3600, np.array(values)
    if len(y) < 8:
        return 0.0, float("inf")
    x = np.column_stack([hours - hours.mean(), np.ones_like(y), calls])
    fit = np.linalg.lstsq(x, y, rcond=None)[0]
    rest = y - x @ fit
    # Samples that follow one another resemble each other: as if there were fewer (lag-1 autocorrelation).
    energy = float(rest @ rest)
    likeness = max(float(rest[1:] @ rest[:-1]) / energy, 0.0) if energy else 0.0
    likeness = min(likeness, 0.95)
    effective = max(len(y) * (1 - likeness) / (1 + likeness), 3.0)
    spread = float(np.linalg.pinv(x.T @ x)[0, 0])
    error = (energy / (len(y) - 3) * spread) ** 0.5 * (len(y) / effective) ** 0.5
    return float(fit[0]), error


def growth(samples: list[Sample]) -> dict[str, dict[str, object]]:
    """The slopes over the last hour, or over the last two thirds of a shorter soak."""
    settled_s = max(samples[-1].at_s - 3600, samples[-1].at_s / 3)
    settled = [sample for sample in samples if sample.at_s >= settled_s]
    times, calls = [sample.at_s for sample in settled], [sample.calls for sample in settled]
    slopes: dict[str, dict[str, object]] = {}
    for name in ("rss_mb", "descriptors", "asterisk_rss_mb", "asterisk_descriptors"):
        per_hour, error = slope(times, calls, [float(getattr(sample, name)) for sample in settled])
        grows = per_hour > NORMAL_QUANTILE * error
        slopes[name] = {"per_hour": round(per_hour, 3), "standard_error": round(error, 3), "grows": grows}
    return slopes


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """One soak, and its figures."""
    prefix = await asyncio.to_thread(fetch, print, ASTERISK)
    question = trimmed(await asyncio.to_thread(utterance, QUESTION))
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="ari_app-soak-") as folder:
        async with Lane(0, prefix, Path(folder)) as lane, lane.session(arguments.mode, OPTIONS) as session:
            soak = Soak(lane, question, arguments.seed)
            before = await session.idle()
            samples: list[Sample] = []
            began_at, cpu_before = loop.time(), process_cost(session.process.pid)["cpu_s"]
            async with asyncio.TaskGroup() as callers:
                for _ in range(arguments.talking):
                    callers.create_task(soak.talk())
                due = began_at
                while (now := loop.time()) < began_at + arguments.minutes * 60:
                    if arguments.per_second and now >= due:
                        callers.create_task(soak.short_call())
                        due += random.Random(due).expovariate(arguments.per_second)
                        continue
                    if not samples or now - began_at >= samples[-1].at_s + SAMPLE_S:
                        samples.append(_sample(lane, session, soak, now - began_at))
                        _say(samples[-1], soak.tally)
                    await asyncio.sleep(0.02)
                soak.over = True
            cpu_s = process_cost(session.process.pid)["cpu_s"] - cpu_before
            left = await session.leftovers(before)
            rtp = await session.rtp_counts()
            faults = session.faults_in_log()
    return _figures(arguments, soak.tally, samples, cpu_s, left, faults, rtp)


OPTIONS = {"SAVE_RECORDINGS": "no", "MAX_CALLS": "300", "DRAIN_SECONDS": "0"}


def _sample(lane: Lane, session: Session, soak: Soak, at_s: float) -> Sample:
    app, asterisk = session.process.pid, lane.asterisk.pid or 0
    return Sample(
        round(at_s, 1),
        soak.tally.active,
        rss_mb(app),
        descriptors(app),
        rss_mb(asterisk),
        descriptors(asterisk),
    )


def _say(sample: Sample, tally: Tally) -> None:
    line = (
        f"{sample.at_s:7.0f} s  {sample.calls:3} calls, {tally.statuses.total()} so far, {sample.rss_mb:.1f} MB, "
        f"{sample.descriptors} descriptors; Asterisk {sample.asterisk_rss_mb:.1f} MB, {sample.asterisk_descriptors}"
    )
    print(line, flush=True)  # noqa: T201, a command


def _figures(
    arguments: argparse.Namespace,
    tally: Tally,
    samples: list[Sample],
    cpu_s: float,
    left: str,
    faults: list[str],
    rtp: Mapping[str, int],
) -> dict[str, object]:
    gaps = summarize(tally.gaps_ms)
    calls = tally.statuses.total()
    return {
        "when": time.strftime("%Y-%m-%d"),
        "method": METHOD.split("\n"),
        "command": f"./scripts/soak {' '.join(sys.argv[1:])}",
        "machine": machine(),
        "minutes": arguments.minutes,
        "talking": arguments.talking,
        "short_calls_per_second": arguments.per_second,
        "mode": arguments.mode,
        "calls": calls,
        "set_up_percent": round(100 * tally.statuses[200] / max(calls, 1), 3),
        "statuses": dict(tally.statuses),
        "ended_by_the_bot": tally.dropped,
        "turns": tally.turns,
        "turns_without_an_answer": tally.silent,
        "packets_heard": tally.packets,
        "packets_lost": tally.lost,
        "frames_sent": rtp.get("sent", 0),
        "frames_late": rtp.get("sent_late", 0),
        "frames_not_sent": rtp.get("sent_skipped", 0) + rtp.get("unsent", 0),
        "frames_without_speech": rtp.get("sent_starved", 0),
        "longest_gap_of_each_call_ms": str(gaps),
        "cpu_percent_of_a_core": round(100 * cpu_s / (arguments.minutes * 60), 1),
        "slopes_over_the_last_hour": growth(samples),
        "left_behind": left or "nothing",
        "faults_in_the_log": faults[:5],
        "samples": [asdict(sample) for sample in samples],
    }


def problems(figures: Mapping[str, Any]) -> list[str]:
    """What must not be."""
    found = [f"{name}: {figures[name]}" for name in NOUGHT if figures[name]]
    if figures["set_up_percent"] < 100:
        found.append(f"set up: {figures['set_up_percent']} %, {figures['statuses']}")
    if figures["left_behind"] != "nothing":
        found.append(f"left behind: {figures['left_behind']}")
    if figures["minutes"] >= SETTLED_MINUTES:
        growing = {
            name: slope for name, slope in figures["slopes_over_the_last_hour"].items() if slope["grows"]
        }
        found += [f"{name} grows: {slope}" for name, slope in growing.items()]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=positive, default=60)
    parser.add_argument("--talking", type=count, default=20, help="callers in conversation at any time")
    parser.add_argument("--per-second", type=float, default=3, help="short calls that begin")
    parser.add_argument("--mode", choices=("pipeline", "realtime"), default="pipeline")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("soak-report"))
    arguments = parser.parse_args()
    figures = asyncio.run(run(arguments))
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "soak.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    shown = {name: value for name, value in figures.items() if name != "samples"}
    print(json.dumps(shown, indent=1))  # noqa: T201, a command
    for problem in (found := problems(figures)):
        print(f"FAIL  {problem}")  # noqa: T201, a command
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""A representative part of the fault matrix, as it runs whole by `./scripts/faults`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults import course, limit, mutants
from tests.faults.__main__ import matrix
from tests.faults.cases import table
from tests.faults.course import MOMENTS
from tests.faults.soak import Sample, growth

SAMPLE = (
    "engine: 401, thinking, pipeline",
    "engine: hangs after the first byte, speaking, pipeline",
    "engine: 10 MB, ringing, pipeline",
    "engine: hangs before the first byte, speaking, realtime",
    "machine: ARI connection half-open, listening, pipeline",
    "machine: kill -9 of the application, greeting, realtime",
    "machine: descriptors used up, listening, pipeline",
    "machine: kill -9 of Asterisk, speaking, pipeline",
    "machine: application paused for 3 s, thinking, realtime",
    "engine: with another that stands in, throughout, pipeline",
    "called: kill -9 of the application, ringing, pipeline",
    "RTP: 20 % loss, throughout, pipeline",
    "RTP: wrong source, throughout, pipeline",
    "RTP: flood of foreign packets, throughout, pipeline",
    "SIP: CANCEL race, throughout, pipeline",
    "SIP: early media, throughout, realtime",
)


def test_the_table_is_whole() -> None:
    names = [case.name for case, _ in table()]
    assert len(names) == len(set(names)) >= 310
    assert {case.moment for case, _ in table() if case.group == "engine"} >= set(MOMENTS)
    assert set(SAMPLE) <= set(names)


@pytest.mark.timeout(900)  # no cell may take longer than cases.LONGEST_S, four at a time
async def test_a_sample_of_it_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        course, "WITNESS_GAP_MS", 1000.0
    )  # other tests run beside it: how steady is for the command
    cells = [(case, procedure) for case, procedure in table() if case.name in SAMPLE]
    notes = await matrix(cells, 4, full_house=True)
    assert len(notes) == len(SAMPLE) + 1
    assert asyncio.all_tasks() == {asyncio.current_task()}, "the matrix left tasks of its own"
    assert {f"{note.fault}, {note.moment}": note.problems for note in notes if not note.ok} == {}
    assert limit.ROOM_FOR == 20


BROKEN_IN_CI = (
    "the bridge is not deleted",
    "nobody minds the silence before an answer",
    "who speaks from elsewhere",
)


def test_what_is_broken_on_purpose_stands_in_the_code(tmp_path: Path) -> None:
    cells = {case.name for case, _ in table()}
    for number, mutant in enumerate(mutants.MUTANTS):
        assert mutant.cell in cells
        assert mutants.broken(mutant, tmp_path / str(number)).exists()


@pytest.mark.timeout(600)
async def test_code_that_is_broken_on_purpose_is_noticed() -> None:
    chosen = [mutant for mutant in mutants.MUTANTS if mutant.name.startswith(BROKEN_IN_CI)]
    found = await mutants.run(chosen, len(chosen), print)
    assert len(found) == len(BROKEN_IN_CI)
    assert [name for name, problems in found.items() if not problems] == []
    assert "the test broke" not in str(found)


@pytest.mark.parametrize(("per_hour", "grows"), [(0.0, False), (60.0, True), (-60.0, False)])
def test_growth_is_told_from_noise_and_from_what_calls_hold(per_hour: float, grows: bool) -> None:
    samples = []
    for i in range(200):
        calls = 20 + i // 10  # more and more of them, and each holds something
        held = 100 + 3.5 * calls + per_hour * i / 360 + (i * 7919 % 13) / 13
        samples.append(Sample(10.0 * i, calls, held, 4 * calls, 50.0, 9 * calls))
    slopes = growth(samples)
    assert slopes["rss_mb"]["grows"] is grows
    assert slopes["rss_mb"]["per_hour"] == pytest.approx(per_hour, abs=3)
    assert slopes["descriptors"]["per_hour"] == pytest.approx(0, abs=0.001)


def test_growth_is_that_of_the_last_hour() -> None:
    """A process that fills its caches at first does not grow for that."""
    noise = [(i * 7919 % 13) / 13 for i in range(720)]
    samples = [Sample(10.0 * i, 20, min(i, 360) + noise[i], 80, 50.0, 180) for i in range(720)]
    assert not growth(samples)["rss_mb"]["grows"]
    assert growth(samples[:480])["rss_mb"]["grows"]

"""A representative part of the fault matrix, as it runs whole by `./scripts/faults`."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults import limit
from tests.faults.__main__ import matrix
from tests.faults.cases import table
from tests.faults.course import MOMENTS
from tests.faults.soak import slope

SAMPLE = (
    "engine: 401, thinking, pipeline",
    "engine: hangs after the first byte, speaking, pipeline",
    "engine: 10 MB, ringing, pipeline",
    "engine: hangs before the first byte, speaking, realtime",
    "machine: ARI connection half-open, listening, pipeline",
    "machine: kill -9 of the application, greeting, realtime",
    "machine: descriptors used up, listening, pipeline",
    "RTP: 20 % loss, throughout, pipeline",
    "RTP: flood of foreign packets, throughout, pipeline",
    "SIP: CANCEL race, throughout, pipeline",
    "SIP: early media, throughout, realtime",
)


def test_the_table_is_whole() -> None:
    names = [case.name for case, _ in table()]
    assert len(names) == len(set(names)) >= 310
    assert {case.moment for case, _ in table() if case.group == "engine"} == set(MOMENTS)
    assert set(SAMPLE) <= set(names)


@pytest.mark.timeout(900)  # no cell may take longer than cases.LONGEST_S, four at a time
async def test_a_sample_of_it_passes() -> None:
    cells = [(case, procedure) for case, procedure in table() if case.name in SAMPLE]
    notes = await matrix(cells, 4, full_house=True)
    assert len(notes) == len(SAMPLE) + 1
    assert asyncio.all_tasks() == {asyncio.current_task()}, "the matrix left tasks of its own"
    assert {f"{note.fault}, {note.moment}": note.problems for note in notes if not note.ok} == {}
    assert limit.ROOM_FOR == 20


@pytest.mark.parametrize(("growth", "is_zero"), [(0.0, True), (60.0, False)])
def test_a_slope_is_told_from_noise(growth: float, is_zero: bool) -> None:
    times = [10.0 * i for i in range(200)]
    values = [100 + growth * t / 3600 + (i * 7919 % 13) / 13 for i, t in enumerate(times)]
    per_hour, error = slope(times, values)
    assert (abs(per_hour) <= 1.96 * error) is is_zero
    assert per_hour == pytest.approx(growth, abs=3)

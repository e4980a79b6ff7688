"""Each fuzzing target with its seeds, what was once found, and some inputs by chance. The rest: `./scripts/fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "data/fuzz"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_was_found(name: str) -> None:
    target, seeds = TARGETS[name]
    for data in [*seeds, *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]:
        target(data)


@pytest.mark.parametrize("name", TARGETS)
def test_neighbours_of_the_seeds(name: str) -> None:
    """Cut, doubled, and with bytes changed."""
    target, seeds = TARGETS[name]

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds), st.binary(max_size=24), st.integers(0, 400), st.integers(0, 60))
    def run(seed: bytes, inserted: bytes, at: int, dropped: int) -> None:
        target(seed[:at] + inserted + seed[at + dropped :])

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_anything(name: str) -> None:
    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=600))
    def run(data: bytes) -> None:
        TARGETS[name][0](data)

    run()

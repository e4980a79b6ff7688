"""Each fuzzing target with its seeds, the corpus, and some inputs by chance. The rest: `./scripts/fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import kept
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_the_corpus(name: str) -> None:
    target, seeds = TARGETS[name]
    inputs = [*seeds, *kept(name)]
    assert len(inputs) > len(seeds), f"`./scripts/fuzz --keep {name}` has never run"
    for data in inputs:
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

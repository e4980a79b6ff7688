"""A detector that is loaded beside the call, and what stands in for it until then."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest

from ari_app.audio.late_vad import LateVad
from ari_app.audio.neural_vad import NeuralVad
from ari_app.audio.vad import EnergyVad, Vad, VadState, make_vad

RINGING = (6000 * np.sin(2 * np.pi * 425 * np.arange(160) / 8000)).astype("<i2").tobytes()
"""20 ms that are loud, and no speech: the energy of them says otherwise."""


def heard_as_speech(vad: Vad) -> bool:
    """By the end of 400 ms of ringing."""
    return [vad.push(RINGING, 0.0) for _ in range(20)][-1] is VadState.SPEAKING


def until_it_is(speech: bool, vad: Vad) -> None:
    """The loader is another thread."""
    until = time.monotonic() + 30
    while heard_as_speech(vad) != speech:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_callers_who_arrive_together_wait_for_no_network() -> None:
    go = threading.Event()

    def load() -> Vad:
        assert go.wait(30)
        return NeuralVad()

    vads = [LateVad(load, EnergyVad()) for _ in range(3)]
    assert all(heard_as_speech(vad) for vad in vads), "the energy decides, and nobody waits"
    assert {vad.threshold_dbfs for vad in vads} == {-40.0}
    go.set()
    for vad in vads:
        until_it_is(False, vad)
        assert vad.threshold_dbfs == NeuralVad.threshold_dbfs


def test_a_network_that_does_not_load_leaves_the_energy_to_decide(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Vad:
        raise RuntimeError("Failed to initialize SileroVAD")

    with caplog.at_level(logging.ERROR):
        vad = LateVad(load, EnergyVad())
        until = time.monotonic() + 30
        while not caplog.records:
            assert heard_as_speech(vad) and time.monotonic() < until
            time.sleep(0.01)
        assert heard_as_speech(vad)
    assert len(caplog.records) == 1 and "Failed to initialize" in caplog.text


def test_what_the_setting_asks_for_comes() -> None:
    vad = make_vad("neural", -40.0)
    assert isinstance(vad, LateVad)
    until_it_is(False, vad)
    assert heard_as_speech(make_vad("energy", -40.0))

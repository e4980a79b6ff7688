"""The estimate of how a call sounds, against published values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.rtp.quality import LineQuality, mos, parse_quality


def test_values_of_the_e_model() -> None:
    """G.107: R = 93.2 is MOS 4.41; Ie,eff of G.711 with 5 % of random loss is 15.8 (G.113: Bpl 25.1)."""
    assert mos(delay_ms=0, loss_percent=0) == pytest.approx(4.41, abs=0.01)
    assert mos(delay_ms=0, loss_percent=5) == pytest.approx(3.91, abs=0.03)
    assert mos(delay_ms=400, loss_percent=0) == pytest.approx(3.0, abs=0.2)
    assert mos(delay_ms=1000, loss_percent=100) == 1.0


@given(st.floats(0, 2000), st.floats(0, 100), st.floats(0, 500), st.floats(0, 50))
def test_worse_never_sounds_better(delay_ms: float, loss: float, more_ms: float, more: float) -> None:
    here = mos(delay_ms=delay_ms, loss_percent=loss)
    assert 1.0 <= here <= 4.5
    assert mos(delay_ms=delay_ms + more_ms, loss_percent=loss) <= here + 1e-9
    assert mos(delay_ms=delay_ms, loss_percent=min(loss + more, 100)) <= here + 1e-9


def test_asterisk_s_figures_are_read() -> None:
    quality = parse_quality(
        {"rxcount": 950, "rxploss": 50, "txcount": 1000, "txploss": 20, "rxjitter": 0.004, "rtt": 0.08}
    )
    assert quality == LineQuality(950, 1000, 5.0, 2.0, 4.0, 80.0)
    assert quality.mos == pytest.approx(mos(delay_ms=88, loss_percent=5))


def test_a_round_trip_of_eighteen_hours_is_none() -> None:
    """As Asterisk 22 was seen to report on loopback."""
    quality = parse_quality({"rxcount": 100, "txcount": 100, "rtt": 65535.999984})
    assert quality.round_trip_ms == 0
    assert quality.mos is not None and quality.mos > 4.3


@pytest.mark.parametrize("counts", [{"rxcount": 0, "txcount": 1500}, {"rxcount": 1500, "txcount": 0}, {}])
def test_a_direction_that_carries_nothing_has_no_quality(counts: dict[str, int]) -> None:
    quality = parse_quality(counts)
    assert quality.mos is None and quality.told()["mos"] is None
    assert "MOS unknown" in str(quality)


@given(
    st.dictionaries(
        st.sampled_from(["rxcount", "rxploss", "txcount", "txploss", "rxjitter", "rtt"]),
        st.none() | st.text(max_size=3) | st.integers(-5, 10**9) | st.floats() | st.just(10**400),
    )
)
def test_whatever_asterisk_says_is_read(reply: dict[str, object]) -> None:
    quality = parse_quality(reply)
    json.dumps(quality.told(), allow_nan=False)
    assert (quality.mos is None) == (quality.received <= 0 or quality.sent <= 0)
    assert quality.mos is None or 1.0 <= quality.mos <= 4.5

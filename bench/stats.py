"""Percentiles and shares of samples. Core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """One measure."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} · {self.p95:.1f} · {self.p99:.1f} · {self.max:.1f}"


def summarize(samples: Sequence[float]) -> Summary | None:
    """None where nothing was measured. Percentiles are samples that occurred, never between two of them."""
    if not samples:
        return None
    p50, p95, p99 = (float(value) for value in np.percentile(samples, (50, 95, 99), method="inverted_cdf"))
    return Summary(len(samples), p50, p95, p99, max(samples))

"""The inputs that fuzzing has found to reach more code, one file for each target, a Python literal a line."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data/fuzz"
LONGEST_KEPT_BYTES = 1024
"""Longer ones reach little more, and make up most of the files."""


def kept(target: str) -> list[bytes]:
    """Those of that target; none if it was never kept."""
    path = FOLDER / f"{target}.txt"
    lines = path.read_text("ascii").splitlines() if path.exists() else []
    return [ast.literal_eval(line) for line in lines]


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """From now on those, the shortest first."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    short = {data for data in inputs if len(data) <= LONGEST_KEPT_BYTES}
    lines = [repr(data) + "\n" for data in sorted(short, key=lambda data: (len(data), data))]
    (FOLDER / f"{target}.txt").write_text("".join(lines), "ascii")

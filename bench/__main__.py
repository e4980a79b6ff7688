"""`python -m bench`: runs the scenarios and writes the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from ari_app.demo.asterisk_prefix import ASTERISK, fetch
from ari_app.errors import AriAppError
from bench import report
from bench.arguments import positive
from bench.scenarios import SCENARIOS, Bench, Result, prepared_speech
from bench.sipp import SIPP
from bench.stats import summarize

QUICK = ["floor", "gap", "baselines", "barge-in", "capacity", "stall"]
"""What `--quick` runs when no scenario is named."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures calls on the wire.")
    parser.add_argument(
        "--quick", action="store_true", help="some scenarios, and few samples: minutes, not an hour"
    )
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario; may be repeated")
    parser.add_argument(
        "--minutes", type=positive, help="of the calls of `alignment` and `endurance` (default: 10; quick: 1)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("bench-report"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="show ratios to an older run")
    arguments = parser.parse_args()
    try:
        old = json.loads(arguments.compare.read_text(encoding="utf-8")) if arguments.compare else None
    except (OSError, ValueError) as error:
        print(f"error: --compare: {error}", file=sys.stderr)
        return 2
    where = report.machine()
    try:
        names = arguments.only or (QUICK if arguments.quick else list(SCENARIOS))
        results = asyncio.run(_run(names, quick=arguments.quick, minutes=arguments.minutes))
    except AriAppError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    data = report.as_data(results, where, quick=arguments.quick)
    for path in report.write(data, arguments.out):
        print(path)
    if old:
        print(report.comparison(old, data))
    return 0


async def _run(names: list[str], *, quick: bool, minutes: float | None) -> list[Result]:
    bench = Bench(
        fetch(_show, ASTERISK), fetch(_show, SIPP), *prepared_speech(), quick, minutes or (1 if quick else 10)
    )
    results = []
    for name in names:
        async for result in SCENARIOS[name](bench):
            results.append(result)
            _show(f"{name} {report.label({'parameters': result.parameters})}")
            for measure, samples in result.samples.items():
                _show(f"    {measure}: {summarize(samples)}")
            _show(f"    {', '.join(f'{k} {v:.4g}' for k, v in result.figures.items())}")
    return results


def _show(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

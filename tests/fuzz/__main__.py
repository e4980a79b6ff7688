"""Coverage-guided fuzzing of what meets bytes from outside, with atheris (libFuzzer).

./scripts/fuzz [--seconds 60] [--output FOLDER] [--keep] [TARGET ...]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.arguments import positive
from bench.report import machine
from tests.fuzz.corpus import keep, kept
from tests.fuzz.targets import TARGETS

LONGEST_INPUT_BYTES = 4096
CHILD = """
import sys
import atheris
with atheris.instrument_imports(include=["ari_app"]):
    from tests.fuzz.targets import TARGETS
target = TARGETS[sys.argv.pop(1)][0]
atheris.Setup(sys.argv, target)
atheris.Fuzz()
"""


def fuzz(name: str, seconds: float, found: Path, *, keep_corpus: bool) -> dict[str, object]:
    """One target; what it finds is written to `found`."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate([*TARGETS[name][1], *kept(name)]):
            (Path(folder) / f"known{number}").write_bytes(data)
        command = [sys.executable, "-c", CHILD, name, folder]
        found.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={seconds:g}", f"-max_len={LONGEST_INPUT_BYTES}", "-print_final_stats=1"]
        run = subprocess.run(
            [*command, *options, f"-artifact_prefix={found}/{name}-", "-timeout=20", "-rss_limit_mb=4096"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if keep_corpus:
            keep(name, (path.read_bytes() for path in Path(folder).iterdir()))
    said = run.stderr + run.stdout
    edges = [int(count) for count in re.findall(r"\bcov: (\d+)", said)]
    inputs = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    last = said[-1500:] if run.returncode else ""
    return {
        "target": name,
        "inputs": int(inputs[1]) if inputs else 0,
        "edges_at_first": edges[0] if edges else 0,
        "edges_at_last": edges[-1] if edges else 0,
        "seconds": seconds,
        "fault": last,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=positive, default=60, help="for each target")
    parser.add_argument(
        "--keep", action="store_true", help="add the inputs that reach more code to the corpus"
    )
    parser.add_argument("--output", type=Path, default=Path("fuzz-report"))
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    results = []
    for name in arguments.targets or TARGETS:
        found = arguments.output / "found"
        results.append(result := fuzz(name, arguments.seconds, found, keep_corpus=arguments.keep))
        verdict = "FAULT" if result["fault"] else "ok   "
        grown = f"{result['edges_at_first']} -> {result['edges_at_last']} edges"
        print(f"{verdict} {name:16} {result['inputs']:>9} inputs, {grown}", flush=True)  # noqa: T201, a command
        if result["fault"]:
            print(result["fault"], flush=True)  # noqa: T201
    report = {"when": time.strftime("%Y-%m-%d"), "machine": machine(), "results": results}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "fuzz.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 1 if any(result["fault"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

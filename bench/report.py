"""The benchmark's report: one JSON with all samples, one Markdown, plots, and a comparison with an older run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.engine import PROFILES
from bench.scenarios import Result
from bench.stats import summarize

METHOD = """\
Callers are SIPp for the signalling and a process of their own for the audio: G.711 µ-law, a packet every 20 ms by
absolute deadline, real speech, arrivals stamped by the kernel. Calls go through a private Asterisk 22 and ExternalMedia
to `python -m ari_app serve`; engine delays are those of `bench/engine.py`. Everything runs on one machine, the load
included. Times are from packet to packet. `own_ms` is the gap without what silence window and engine impose: the
window, or the start of speculation plus the engine's delays, whichever is longer. "sequential" is
`bench/sequential.py`. In `alignment` callers click every 2 s and an echo answers: `echo_ms` is the distance of both in
the recording (what waits in the echo's queue grows when the machine is busy), `beside_ms` how much longer it is on the
wire. A drift is how much a distance has changed from the first three clicks to the last three: that one; of the clicks
on the left, against when they were sent; of those on the right, against when they arrived.
Columns: samples, then p50 · p95 · p99 · max."""
MAX_SAMPLES = 20_000
"""Kept of one measure in the JSON; of more, every n-th."""


def machine() -> dict[str, Any]:
    """Where it ran, and which code."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return {
        "code": _code(),
        "processor": model,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _code() -> str:
    """The commit, and whether the package was changed since."""
    try:
        commit, changed = (
            subprocess.run(("git", *words), capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--", "ari_app"))
        )
    except (OSError, subprocess.CalledProcessError):  # no clone
        return "unknown"
    return f"{commit}, changed" if changed else commit


def as_data(results: Iterable[Result], where: Mapping[str, Any], *, quick: bool) -> dict[str, Any]:
    """Everything, for the JSON file."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "quick": quick,
        "machine": dict(where),
        "engines": {name: asdict(profile) for name, profile in PROFILES.items()},
        "results": [_thinned(asdict(result)) for result in results],
    }


def _thinned(result: dict[str, Any]) -> dict[str, Any]:
    summaries = {name: summarize(samples) for name, samples in result["samples"].items()}
    result["summary"] = {name: asdict(s) for name, s in summaries.items() if s}
    result["samples"] = {
        name: [round(v, 3) for v in samples[:: 1 + len(samples) // MAX_SAMPLES]]
        for name, samples in result["samples"].items()
    }
    result["figures"] = {name: round(value, 4) for name, value in result["figures"].items()}
    return result


def as_markdown(data: Mapping[str, Any]) -> str:
    """The report for a reader."""
    where = data["machine"]
    lines = [
        "# Benchmark",
        "",
        f"{data['when']}, {'quick run' if data['quick'] else 'full run'}, {where['cores']} cores of "
        f"{where['processor']}, load {where['load_before']:.1f} before, Python {where['python']}.",
        "",
        METHOD,
    ]
    by_scenario: dict[str, list[dict[str, Any]]] = {}
    for result in data["results"]:
        by_scenario.setdefault(result["scenario"], []).append(result)
    for scenario, results in by_scenario.items():
        lines += ["", f"## {scenario}", "", *_table(results)]
    return "\n".join(lines) + "\n"


def _table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    measures = list(dict.fromkeys(name for r in results for name in r["summary"]))
    figures = list(dict.fromkeys(name for r in results for name in r["figures"]))
    head = ["", *measures, *(name.replace("_", " ") for name in figures)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for result in results:
        cells = [label(result)]
        for name in measures:
            s = result["summary"].get(name)
            cells.append(
                f"{s['count']}: {s['p50']:.1f} · {s['p95']:.1f} · {s['p99']:.1f} · {s['max']:.1f}"
                if s
                else ""
            )
        cells += [f"{result['figures'].get(name, 0):.4g}" for name in figures]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def label(result: Mapping[str, Any]) -> str:
    """The parameters in words."""
    return ", ".join(f"{name.removesuffix('_ms')} {value}" for name, value in result["parameters"].items())


def comparison(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Ratios of medians, new over old, for what both runs measured."""
    before = {(r["scenario"], label(r)): r["summary"] for r in old["results"]}
    lines = ["| | measure | old p50 | new p50 | new/old |", "|---|---|---|---|---|"]
    for result in new["results"]:
        summaries = before.get((result["scenario"], label(result)), {})
        for name, now in result["summary"].items():
            then = summaries.get(name)
            if then and then["p50"]:
                lines.append(
                    f"| {result['scenario']} {label(result)} | {name} | {then['p50']:.1f} | {now['p50']:.1f} "
                    f"| {now['p50'] / then['p50']:.2f} |"
                )
    return "\n".join(lines) + "\n"


def plot(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Cumulative distributions of the gaps and of the pacing, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    written = []
    for measure, title in (("gap_ms", "Caller's last word to bot's first"), ("packet_gap_ms", "Packet gaps")):
        chosen = [r for r in data["results"] if r["samples"].get(measure)]
        if not chosen:
            continue
        figure, axes = pyplot.subplots(figsize=(8, 5))
        for result in chosen:
            samples = sorted(result["samples"][measure])
            shares = [(i + 1) / len(samples) for i in range(len(samples))]
            axes.step(samples, shares, where="post", label=f"{result['scenario']} {label(result)}")
        axes.set(title=title, xlabel="ms", ylabel="share of samples", ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
        path = folder / f"{measure.removesuffix('_ms')}.svg"
        figure.savefig(path)
        pyplot.close(figure)
        written.append(path)
    return written


def write(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """report.json, report.md and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "report.json", folder / "report.md"]
    files[0].write_text(json.dumps(data) + "\n", encoding="utf-8")
    files[1].write_text(as_markdown(data), encoding="utf-8")
    return files + plot(data, folder)

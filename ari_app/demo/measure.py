"""What a call cost and what it left behind, read from the process table and from Asterisk. Shell."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from ari_app.demo.asterisk import PrivateAsterisk

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Direct child processes."""
    pids: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        pids += [int(word) for word in task.read_text().split()]
    return pids


def process_cost(pid: int) -> dict[str, float]:
    """CPU seconds used so far and peak resident memory in MB of one living process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_ticks = int(fields[11]) + int(fields[12])
    peak_kb = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak_kb = int(line.split()[1])
    return {"cpu_s": round(cpu_ticks / TICKS_PER_S, 2), "peak_rss_mb": round(peak_kb / 1024, 1)}


def socket_rows(pid: int, protocol: str) -> list[list[str]]:
    """The rows of /proc/net/`protocol` ("tcp", "udp") that are sockets of a process, in columns."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(link))
        except FileNotFoundError:  # closed while we looked
            continue
    rows = [line.split() for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]]
    return [row for row in rows if f"socket:[{row[9]}]" in held]


@dataclass(frozen=True)
class Footprint:
    """What exists because of calls: Asterisk's channels and bridges, the application's UDP sockets."""

    channels: int
    bridges: int
    udp_sockets: int


async def footprint(asterisk: PrivateAsterisk, application_pid: int) -> Footprint:
    """Count now."""
    headers = {"Authorization": aiohttp.encode_basic_auth(asterisk.ari_user, asterisk.ari_password)}
    counts = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for kind in ("channels", "bridges"):
            async with session.get(f"{asterisk.ari_url}/ari/{kind}") as answer:
                counts.append(len(await answer.json()))
    channels, bridges = counts
    return Footprint(channels, bridges, len(socket_rows(application_pid, "udp")))

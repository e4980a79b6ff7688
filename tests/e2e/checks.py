"""What end-to-end tests assert on: words, files, and that nothing of a call is left."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp

from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.measure import Footprint, footprint


def words(text: str) -> list[str]:
    """Lower case; "where's" and "where is" are the same words."""
    plain = re.sub(r"\b(where|what|that|it|how|there|here|who)['’]s\b", r"\1 is", text.lower())
    return re.findall(r"[a-z0-9']+", plain)


def word_error_rate(said: str, heard: str) -> float:
    """Word edit distance over the number of words said."""
    reference, hypothesis = words(said), words(heard)
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, got in enumerate(hypothesis, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (wanted != got))
    return row[-1] / len(reference)


def events_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_text("utf-8").splitlines()]


async def settled(
    asterisk: PrivateAsterisk, pid: int, *, before: Footprint | None = None, within_s: float = 5
) -> Footprint:
    """The footprint once no channel and no bridge exist, or what is still there after a while.

    With `before`, once it is that again. `pid` is the process whose UDP sockets count: the application's while
    it lives; Asterisk's, which has two of its own for every channel with media, after `dial` has ended.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        now = await footprint(asterisk, pid)
        is_settled = now == before if before else (now.channels, now.bridges) == (0, 0)
        if is_settled or loop.time() > deadline:
            return now
        await asyncio.sleep(0.1)


async def asterisk_footprint(asterisk: PrivateAsterisk) -> Footprint:
    """What Asterisk holds, its own UDP sockets included."""
    return await footprint(asterisk, pid_of(asterisk))


async def asterisk_settled(asterisk: PrivateAsterisk, before: Footprint) -> Footprint:
    """What Asterisk holds once it is `before` again, or after a while."""
    return await settled(asterisk, pid_of(asterisk), before=before)


def pid_of(asterisk: PrivateAsterisk) -> int:
    assert asterisk.pid is not None, "Asterisk does not run"
    return asterisk.pid


def threads(pid: int) -> int:
    """Number of threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


async def create_bridge(asterisk: PrivateAsterisk, bridge_id: str) -> None:
    """A bridge of somebody else's."""
    headers = {"Authorization": aiohttp.encode_basic_auth(asterisk.ari_user, asterisk.ari_password)}
    url = f"{asterisk.ari_url}/ari/bridges"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, params={"bridgeId": bridge_id}) as answer,
    ):
        assert answer.status == 200


async def until(condition: Any, *, within_s: float = 10) -> None:
    """Wait for an observable state; fails when it does not come."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not condition():
        assert loop.time() < deadline, "the awaited state did not come"
        await asyncio.sleep(0.05)

"""Which recordings are kept, by age and by size; and the tidying itself. Core and shell."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ari_app.record.recorder import LOCK_NAME

logger = logging.getLogger(__name__)

TIDY_EVERY_S = 600
_OURS = re.compile(r"[a-z]+_\d{8}-\d{6}_[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished call's directory."""

    path: Path
    ended_at: float
    """Seconds since 1970."""
    size_bytes: int


def to_delete(kept: Sequence[Kept], now: float, *, max_age_s: float, max_bytes: int) -> list[Kept]:
    """What has to go: all that is older than `max_age_s`, then the oldest until the rest fits; 0: no bound."""
    oldest_first = sorted(kept, key=lambda call: call.ended_at)
    doomed = [call for call in oldest_first if max_age_s and now - call.ended_at > max_age_s]
    rest = oldest_first[len(doomed) :]
    size_bytes = sum(call.size_bytes for call in rest)
    while max_bytes and size_bytes > max_bytes:
        size_bytes -= rest[0].size_bytes
        doomed.append(rest.pop(0))
    return doomed


async def tidy_for_ever(root: Path, *, max_age_s: float, max_bytes: int) -> None:
    """Delete what has to go, now and every ten minutes."""
    while True:
        try:
            await asyncio.to_thread(tidy, root, max_age_s=max_age_s, max_bytes=max_bytes)
        except OSError as error:  # a disk that is away comes back
            logger.warning("recordings are not tidied: %s", error)
        await asyncio.sleep(TIDY_EVERY_S)


def tidy(root: Path, *, max_age_s: float, max_bytes: int) -> None:
    """Delete what has to go from `root`; nothing that is not ours, and no call that goes on.

    Raises:
        OSError: the disk does not let us.
    """
    doomed = to_delete(finished(root), time.time(), max_age_s=max_age_s, max_bytes=max_bytes)
    for call in doomed:
        shutil.rmtree(call.path)
    if doomed:
        logger.info("%d recordings deleted: too old, or beyond the size of all", len(doomed))


def finished(root: Path) -> list[Kept]:
    """The directories of calls that are over."""
    if not root.is_dir():
        return []
    return [
        Kept(folder, folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()))
        for folder in root.iterdir()
        if _OURS.fullmatch(folder.name)
        and folder.is_dir()
        and not folder.is_symlink()
        and not _goes_on(folder)
    ]


def _goes_on(folder: Path) -> bool:
    """Its recorder holds the lock; the kernel lets go of it however the process ends."""
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False

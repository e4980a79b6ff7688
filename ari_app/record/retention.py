"""Which recordings are kept, by age and by size; and the tidying itself. Core and shell."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ari_app.apart import apart
from ari_app.record.folder import goes_on

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


class Tidier:
    """Deletes what has to go from `root`; nothing that is not ours, and no call that goes on.

    What resists is passed over and named once: it must not keep the rest.
    """

    def __init__(self, root: Path, *, max_age_s: float, max_bytes: int) -> None:
        self._root = root
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._named: set[str] = set()
        """What resisted, and is known to the operator."""

    async def run(self) -> None:
        """Now and every ten minutes, for ever."""
        while True:
            await apart(self.tidy)
            await asyncio.sleep(TIDY_EVERY_S)

    def tidy(self) -> None:
        """Once. Blocks."""
        doomed = to_delete(self.finished(), time.time(), max_age_s=self._max_age_s, max_bytes=self._max_bytes)
        deleted = sum(self._delete(call.path) for call in doomed)
        if deleted:
            logger.info("%d recordings deleted: too old, or beyond the size of all", deleted)

    def _delete(self, folder: Path) -> bool:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # somebody else deleted it, or a file of it
            return not folder.exists() or self._resists(folder, "it changes while it is deleted")
        except OSError as error:
            return self._resists(folder, error)
        return True

    def _resists(self, folder: Path, why: object) -> bool:
        if str(folder) not in self._named:
            self._named.add(str(folder))
            logger.warning("the recording %s can't be tidied away: %s", folder, why)
        return False

    def finished(self) -> list[Kept]:
        """The directories of calls that are over."""
        try:
            folders = [folder for folder in self._root.iterdir() if _OURS.fullmatch(folder.name)]
        except FileNotFoundError:  # nothing was recorded yet
            return []
        except OSError as error:  # a disk that is away comes back
            self._resists(self._root, error)
            return []
        return [call for folder in folders if (call := self._kept(folder)) is not None]

    def _kept(self, folder: Path) -> Kept | None:
        """None: it is no call's, its call goes on, or nothing can be known of it."""
        try:
            if not folder.is_dir() or folder.is_symlink() or goes_on(folder):
                return None
            return Kept(folder, folder.stat().st_mtime, sum(map(_size_bytes, folder.iterdir())))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._resists(folder, error)
            return None


def _size_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # deleted meanwhile
        return 0

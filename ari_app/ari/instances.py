"""Which of our processes live on this host: a locked file each, unlocked however they die. Shell."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ari_app.ari.ids import TAG_LENGTH
from ari_app.errors import ConfigError, SetupError

log = logging.getLogger(__name__)

_NAME = re.compile(rf"[0-9a-f]{{{TAG_LENGTH}}}\.lock")
LONGEST_URL_BYTES = 4096
PATIENCE_S = 4.0
"""A process that sweeps after a dead one holds its file for some milliseconds; where Asterisk does not answer, for
`reconcile.ANSWER_S`."""


def state_directory() -> Path:
    """Where our processes leave files for each other: ${XDG_STATE_HOME:-~/.local/state}/ari_app."""
    root = os.environ.get("XDG_STATE_HOME", "")
    return (Path(root) if root else Path.home() / ".local" / "state") / "ari_app"


def is_alive(state_dir: Path, tag: str) -> bool:
    """True while a process of this host has that tag."""
    try:
        file = _lock(state_dir / "instances" / f"{tag}.lock", create=False)
    except OSError:
        return False
    if file is not None:
        file.close()
    return file is None and (state_dir / "instances" / f"{tag}.lock").exists()


class Instance:
    """This process, while it may own objects in Asterisk.

    Args:
        state_dir: of all our processes on this host; the files are in its folder `instances`.
        tag: of this process's object ids.
        ari_url: whose Asterisk.
        app: its Stasis application, for the error's sentence.

    Raises (on enter):
        ConfigError: another process with this tag lives.
        SetupError: the folder cannot be written.
    """

    def __init__(self, state_dir: Path, tag: str, ari_url: str, app: str) -> None:
        self.tag = tag
        self._ari_url = ari_url.rstrip("/")
        self._app = app
        self._folder = state_dir / "instances"
        self._path = self._folder / f"{tag}.lock"
        self._file: BinaryIO | None = None

    def __enter__(self) -> Instance:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._lock_own()
        except OSError as error:
            raise SetupError(f"cannot keep a file in {self._folder}: {error.strerror}") from error
        if self._file is None:
            raise ConfigError(
                f"another process on this host already serves the Stasis application {self._app} of "
                f"{self._ari_url}: stop it, or set ARI_APP to another name for this one."
            )
        self._file.truncate()
        self._file.write(self._ari_url.encode())
        self._file.flush()
        return self

    def _lock_own(self) -> BinaryIO | None:
        deadline = time.monotonic() + PATIENCE_S
        while (file := _lock(self._path)) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # while it is locked: nobody else's is removed
            self._file.close()
            self._file = None

    @contextlib.contextmanager
    def dead(self) -> Iterator[set[str]]:
        """Tags of dead processes of this host that used the same Asterisk.

        While the context lasts nobody else sweeps after them, and none of them starts anew; when it ends without an
        exception, those that are still in the set are forgotten. Who can't be looked at now is looked at the next
        time.
        """
        with contextlib.ExitStack() as locks:
            found: dict[str, Path] = {}
            try:
                paths = sorted(self._folder.iterdir())
            except OSError as error:  # no descriptor is left, or somebody deleted the folder
                log.debug("cannot look for dead processes: %s", error)
                paths = []
            for path in paths:
                if not _NAME.fullmatch(path.name) or path == self._path:
                    continue
                try:
                    file = _lock(path, create=False)
                except OSError as error:
                    log.debug("cannot look at %s: %s", path, error)
                    continue
                if file is None:
                    continue
                if file.read(LONGEST_URL_BYTES).decode(errors="replace") == self._ari_url:
                    locks.enter_context(file)
                    found[path.stem] = path
                else:
                    file.close()
            yield (done := set(found))
            for tag in done:
                found[tag].unlink(missing_ok=True)


def _lock(path: Path, *, create: bool = True) -> BinaryIO | None:
    """The file, locked; None when another process holds it, or (`create` False) it was removed meanwhile."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            return None
        file = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, a process that ended may have removed it: then it locks nobody out.
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()

"""Files that grow while a call goes on and are whole at any moment: plain, or sealed for a public key. Shell."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Protocol

from ari_app.record.seal import SEALED_SUFFIX, Seal, piece_of

KEEP_SIZE = 1
"""FALLOC_FL_KEEP_SIZE of fallocate(2): room behind the end of a file, which nobody sees."""
RESERVE_BYTES = 16384
"""Asked for at a time."""
LAST_WORDS_BYTES = 4096
"""For what has to be written even when the disk is full."""


class Output(Protocol):
    """What recordings are written to. Each method raises OSError when the disk does not take it."""

    def append(self, piece: bytes) -> None:
        """Write at the end, through to the operating system: all of it, or nothing."""
        ...

    def patch(self, offset: int, piece: bytes) -> None:
        """Write over what is there, as far as the kind of file allows that."""
        ...

    def has_room(self, length_bytes: int) -> bool:
        """Keep some room behind the end, and tell whether so much can be appended and the last words after it."""
        ...

    def close(self) -> None: ...

    def discard(self) -> None:
        """Close and remove the file."""
        ...


class PlainFile:
    """A file as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._size_bytes = 0
        self._reserved_bytes = 0
        """Up to there the disk has room for us, whoever else fills it."""

    def append(self, piece: bytes) -> None:
        try:
            self._write(piece, self._size_bytes)
        except OSError:
            os.ftruncate(self._fd, self._size_bytes)  # half a piece would spoil what follows
            self._reserved_bytes = 0
            raise
        self._size_bytes += len(piece)

    def patch(self, offset: int, piece: bytes) -> None:
        self._write(piece, offset)

    def has_room(self, length_bytes: int) -> bool:
        needed_bytes = self._size_bytes + length_bytes + LAST_WORDS_BYTES
        if needed_bytes <= self._reserved_bytes:
            return True
        for wanted_bytes in (needed_bytes + RESERVE_BYTES, needed_bytes):
            try:
                _reserve(self._fd, self._size_bytes, wanted_bytes - self._size_bytes)
            except OSError:
                continue
            self._reserved_bytes = wanted_bytes
            return True
        return False

    def close(self) -> None:
        descriptor, self._fd = self._fd, -1
        if descriptor < 0:
            return
        try:
            if self._reserved_bytes:
                os.ftruncate(descriptor, self._size_bytes)
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        self.close()
        self._path.unlink(missing_ok=True)

    def _write(self, piece: bytes, offset: int) -> None:
        rest = memoryview(piece)
        while rest:
            count = os.pwrite(self._fd, rest, offset)
            rest, offset = rest[count:], offset + count


class SealedFile:
    """A file that only the owner of the private key can read; `path` gets the suffix `.age`."""

    def __init__(self, path: Path, seal: Seal, recording: str = "") -> None:
        self._file = PlainFile(path.with_name(path.name + SEALED_SUFFIX))
        self._name = path.name
        self._seal = seal
        self._recording = recording
        self._count = 0

    def append(self, piece: bytes) -> None:
        self._append(piece, last=False)

    def _append(self, piece: bytes, *, last: bool) -> None:
        head = piece_of(self._recording, self._name, self._count, last=last)
        self._file.append(self._seal(head + piece))
        self._count += 1

    def patch(self, offset: int, piece: bytes) -> None:
        """Not done: what is sealed stays as it is. `unsealed` mends the header of a WAV file instead."""

    def has_room(self, length_bytes: int) -> bool:
        return self._file.has_room(2 * length_bytes)  # base64, and what age adds

    def close(self) -> None:
        try:
            self._append(b"", last=True)
        finally:
            self._file.close()

    def discard(self) -> None:
        self._file.discard()


def create(path: Path, seal: Seal | None, recording: str = "") -> Output:
    """A new file of mode 0600, sealed when there is a key; `recording` is a secret that its files share."""
    return PlainFile(path) if seal is None else SealedFile(path, seal, recording)


def write_once(output: Output, content: bytes) -> None:
    """Write a new file's whole content and close it; what the disk does not take leaves no file.

    Raises:
        OSError: the disk does not take it.
    """
    try:
        output.append(content)
        output.close()
    except OSError:
        output.discard()
        raise


def _reserve(fd: int, offset: int, length_bytes: int) -> None:
    """Have the disk keep room. Where that can't be asked for, there is none to be had.

    Raises:
        OSError: the disk is full.
    """
    fallocate = getattr(_LIBC, "fallocate", None)
    if fallocate is None:
        return
    if fallocate(fd, KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length_bytes)):
        number = ctypes.get_errno()
        if number in _FULL:
            raise OSError(number, os.strerror(number))


_LIBC = ctypes.CDLL(None, use_errno=True)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

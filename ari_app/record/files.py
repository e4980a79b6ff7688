"""Files that grow while a call goes on and are whole at any moment: plain, or sealed for a public key. Shell.

A sealed file is a sequence of armored age messages (age-encryption.org/v1), one for each piece that was appended; their
plain texts, one after the other, are the file. Only the private key's owner can read it, and a killed process costs the
last piece.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ari_app.errors import ConfigError

SEALED_SUFFIX = ".age"
_END = b"-----END AGE ENCRYPTED FILE-----\n"

Seal = Callable[[bytes], bytes]
"""From a piece to one armored message."""


class Output(Protocol):
    """What recordings are written to. Each method raises OSError when the disk does not take it."""

    def append(self, piece: bytes) -> None:
        """Write at the end, through to the operating system: the whole piece, or nothing of it."""
        ...

    def patch(self, offset: int, piece: bytes) -> None:
        """Write over what is there, as far as the kind of file allows that."""
        ...

    def close(self) -> None: ...

    def discard(self) -> None:
        """Close and remove the file."""
        ...


class PlainFile:
    """A file as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = open(path, "xb", buffering=0, opener=_private)

    def append(self, piece: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._write(piece)
        except OSError:  # a full disk takes the part that fits
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise

    def patch(self, offset: int, piece: bytes) -> None:
        self._file.seek(offset)
        self._write(piece)

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[self._file.write(rest) :]


class SealedFile:
    """A file that only the owner of the private key can read; `path` gets the suffix `.age`."""

    def __init__(self, path: Path, seal: Seal) -> None:
        self._file = PlainFile(path.with_name(path.name + SEALED_SUFFIX))
        self._seal = seal

    def append(self, piece: bytes) -> None:
        self._file.append(self._seal(piece))

    def patch(self, offset: int, piece: bytes) -> None:
        """Not done: what is sealed stays as it is. `unsealed` mends the header of a WAV file instead."""

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self._file.discard()


def create(path: Path, seal: Seal | None) -> Output:
    """A new file of mode 0600, sealed when there is a key."""
    return PlainFile(path) if seal is None else SealedFile(path, seal)


def write_once(output: Output, content: bytes) -> None:
    """Write a new file's whole content and close it; what the disk does not take leaves no file.

    Raises:
        OSError: the disk does not take it.
    """
    try:
        output.append(content)
    except OSError:
        output.discard()
        raise
    finally:
        output.close()


def seal_for(key: str) -> Seal:
    """What seals for an age public key.

    Raises:
        ConfigError: it is none, or the package is missing.
    """
    age = _age()
    try:
        recipient = age.x25519.Recipient.from_str(key)
    except age.RecipientError:
        raise ConfigError(
            "RECORDINGS_KEY is not an age public key: make a pair with age-keygen, and set the line of age1…"
        ) from None
    return lambda piece: age.encrypt(piece, [recipient], True)


def opener_of(identity: str) -> Callable[[bytes], bytes]:
    """What opens sealed files with an age private key (AGE-SECRET-KEY-1…).

    The opener takes a whole sealed file; what a killed process left unfinished at its end is left out.

    Raises:
        ConfigError: it is none, or the package is missing; by the opener: the file is for another key, or damaged.
    """
    age = _age()
    try:
        keys = [age.x25519.Identity.from_str(_key_line(identity))]
    except age.IdentityError:
        raise ConfigError(
            "the file of --identity holds no age private key (a line of AGE-SECRET-KEY-1…)."
        ) from None

    def unseal(sealed: bytes) -> bytes:
        try:
            return b"".join(age.decrypt(message, keys) for message in messages(sealed))
        except age.DecryptError:
            raise ConfigError("the recording is sealed for another key, or damaged.") from None

    return unseal


def messages(sealed: bytes) -> Sequence[bytes]:
    """The whole messages of a sealed file."""
    *whole, _ = sealed.split(_END)
    return [message + _END for message in whole]


def _key_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in lines if line.startswith("AGE-SECRET-KEY-")), "")


def _age() -> Any:
    try:
        import pyrage
    except ImportError:
        raise ConfigError(
            "sealed recordings need the package pyrage: pip install 'ari_app[sealed]', or unset RECORDINGS_KEY."
        ) from None
    return pyrage


def _private(path: str, flags: int) -> int:
    """Callers' words are nobody else's business."""
    return os.open(path, flags, 0o600)

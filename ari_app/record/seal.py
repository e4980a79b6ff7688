"""Sealing for a public key, and opening with the private one. Shell without a file.

A sealed file is a sequence of armored age messages (age-encryption.org/v1). Each begins with a line of JSON: a secret
of the recording, the file's name, the message's number, and whether it is the last one; what follows the lines is the
file. Who has only the public key can neither leave messages out, nor change their order, nor add one, without being
found out. Only the private key's owner can read it, and a killed process costs the last second.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ari_app.errors import ConfigError

SEALED_SUFFIX = ".age"
_END = b"-----END AGE ENCRYPTED FILE-----\n"

Seal = Callable[[bytes], bytes]
"""From a piece to one armored message."""


class Tampered(ConfigError):
    """A sealed file is not as it was written."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in a sealed file."""

    plain: bytes
    complete: bool
    """False: its end is missing, as after a kill of the process, or when somebody took it away."""


def piece_of(recording: str, name: str, number: int, *, last: bool) -> bytes:
    """The first line of a message."""
    head = {"recording": recording, "file": name, "piece": number, "last": last}
    return json.dumps(head).encode() + b"\n"


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


class Opener:
    """Opens the files of one recording.

    Args:
        identity: the text of an age key file (AGE-SECRET-KEY-1…).

    Raises:
        ConfigError: it holds no key, or the package is missing.
    """

    def __init__(self, identity: str) -> None:
        self._age = _age()
        try:
            self._keys = [self._age.x25519.Identity.from_str(_key_line(identity))]
        except self._age.IdentityError:
            raise ConfigError(
                "the file of --identity holds no age private key (a line of AGE-SECRET-KEY-1…)."
            ) from None
        self._recording: str | None = None
        """The secret of the first piece: all others have to know it."""

    def open(self, name: str, sealed: bytes) -> Opened:
        """The content of the sealed file that was written under `name`.

        Raises:
            Tampered: pieces are missing, changed, added, or of another file.
            ConfigError: it is for another key, or damaged from its first piece on.
        """
        plain = bytearray()
        last = False
        for number, message in enumerate(messages(sealed)):
            if last:
                raise Tampered(f"{name} was tampered with: there is more behind its end.")
            head, piece = self._piece(name, number, message)
            last = bool(head["last"])
            plain += piece
        if last and not sealed.endswith(_END):
            raise Tampered(f"{name} was tampered with: there is more behind its end.")
        return Opened(bytes(plain), last)

    def _piece(self, name: str, number: int, message: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            line, _, piece = self._age.decrypt(message, self._keys).partition(b"\n")
        except self._age.DecryptError:
            if number or self._recording is not None:
                raise Tampered(f"{name} was tampered with: its piece {number + 1} can't be opened.") from None
            raise ConfigError("the recording is sealed for another key, or damaged.") from None
        head = _head(line)
        if head is None:
            raise Tampered(f"{name} was tampered with: its piece {number + 1} is none of ours.")
        if self._recording is None:
            self._recording = head["recording"]
        if head["recording"] != self._recording or head["file"] != name:
            raise Tampered(f"{name} was tampered with: its piece {number + 1} is of another file.")
        if head["piece"] != number:
            raise Tampered(f"{name} was tampered with: its piece {number + 1} is missing, or out of order.")
        return head, piece


def messages(sealed: bytes) -> Sequence[bytes]:
    """The whole messages of a sealed file."""
    *whole, _ = sealed.split(_END)
    return [message + _END for message in whole]


def _head(line: bytes) -> dict[str, Any] | None:
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(head, dict) and head.keys() >= {"recording", "file", "piece", "last"}
    return head if known and isinstance(head["recording"], str) else None


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

"""Numbers to dial and the ledger of them, recorded sound, and sealed files."""

from __future__ import annotations

import json
import math
import re
import struct
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pyrage

from ari_app.errors import AriAppError, ConfigError, LimitReached, SetupError
from ari_app.guard import EMERGENCY, LONGEST, Rules, is_number, refusal
from ari_app.ledger import Ledger
from ari_app.offline.wav import read_wav
from ari_app.record.peaks import peaks_of
from ari_app.record.seal import Opener, Seal, Tampered, piece_of, seal_for

RULES = (
    Rules(allow=("+4930", "100", "*98"), deny=("+49301", "0900"), country_code="49", extension_digits=3),
    Rules(allow=("+1",), deny=("+1900",), country_code="1", extension_digits=4, daily_minutes=3),
    Rules(allow=("+44", "+88213"), extension_digits=0),
    Rules(extension_digits=2, concurrent=1, per_minute=1),
)


def dialling(data: bytes) -> None:
    """A number to dial, and behind its line the ledger: what may be dialled is a number, and time has a limit."""
    first, _, ledger = data.partition(b"\n")
    number = first.decode("utf-8", "replace")
    for rules in RULES:
        if is_number(number) and refusal(number, rules) is None:
            _check_number(number, rules)
    if not ledger:
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dialled").mkdir()
        (Path(folder) / "dialled/ledger.json").write_bytes(ledger)
        try:
            _check_ledger(Ledger(Path(folder), RULES[len(data) % len(RULES)]), RULES[len(data) % len(RULES)])
        except SetupError as error:
            assert len(str(error)) < 500


def _check_number(number: str, rules: Rules) -> None:
    if number in rules.allow:
        return
    assert re.fullmatch(r"\+?[0-9]+", number, re.ASCII) and len(number) <= LONGEST + 2, number
    assert number not in EMERGENCY and not number.startswith(tuple(rules.deny)), number
    if number.startswith("+"):
        assert number.startswith(tuple(rules.allow) + (f"+{rules.country_code or 'none'}",)), number
        assert len(number) <= LONGEST


def _check_ledger(ledger: Ledger, rules: Rules) -> None:
    why = ledger.why_not()
    assert why is None or "DIAL_" in why
    left_s = ledger.remaining_s()
    assert math.isfinite(left_s) and left_s <= rules.daily_minutes * 60
    began = time.time()
    try:
        with ledger.call("fuzzed", left_s):
            assert why is None and left_s >= 1
            assert ledger.remaining_s() <= left_s
    except LimitReached:
        assert why is not None
    assert time.time() - began < 10


def sound_file(data: bytes) -> None:
    """A file that is to be sound, for the console's picture and for the offline backend: it is, or it is none."""
    columns, file = 1 + (data[0] if data else 0), data[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "call.wav"
        path.write_bytes(file)
        try:
            peaks = peaks_of(path, columns)
        except ValueError as refusal:
            assert str(refusal)
        else:
            assert 0 <= peaks.seconds < math.inf
            for side in (peaks.caller, peaks.bot):
                assert 1 <= len(side) <= columns and np.all((side >= 0) & (side <= 1))
    try:
        pcm = read_wav(file, 16_000)
    except ValueError as refusal:
        assert str(refusal)
    else:
        assert len(pcm) % 2 == 0 and len(pcm) <= 4 * 4 * (len(file) + 4096)


SECRET = "s3cret-of-the-fuzzer"
FORGED, GENUINE = "audio.wav", "events.jsonl"


def sealed_file(data: bytes) -> None:
    """Pieces by somebody who has the public key only, a line each: they do not pass for a part of the recording.

    A line is the head of a piece; one that begins with "!" is bytes of the file.
    """
    identity, seal = _keys()
    lines = data.split(b"\n")[:6]
    forged = b"".join(line[1:] if line.startswith(b"!") else seal(line + b"\nforged") for line in lines)
    genuine = seal(piece_of(SECRET, GENUINE, 0, last=False) + b"one\n")
    genuine += seal(piece_of(SECRET, GENUINE, 1, last=True))
    for files in ([(FORGED, forged), (GENUINE, genuine)], [(GENUINE, genuine), (FORGED, forged)]):
        opener = Opener(identity)
        try:
            opened = {name: opener.open(name, sealed) for name, sealed in files}
        except AriAppError as refused:
            assert isinstance(refused, Tampered | ConfigError) and len(str(refused)) < 500
            continue
        assert opened[GENUINE].plain == b"one\n" and opened[GENUINE].complete
        assert not opened[FORGED].plain or SECRET.encode() in data, "what is forged passed for genuine"


@cache
def _keys() -> tuple[str, Seal]:
    identity = pyrage.x25519.Identity.generate()
    return str(identity), seal_for(str(identity.to_public()))


def wav(channels: int, rate_hz: int, pcm: bytes, *, kind: int = 1) -> bytes:
    """A file of PCM16."""
    block = 2 * channels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate_hz, rate_hz * block, block, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", 36 + len(pcm), b"WAVE")
        + form
        + struct.pack("<4sI", b"data", len(pcm))
        + pcm
    )


def _entry(**changed: object) -> dict[str, object]:
    return {"call_id": "a", "started_at": 4e9, "limit_s": 60.0, "ended_at": None, **changed}


NUMBERS = [
    b"+4930123456\n" + json.dumps([_entry()]).encode(),
    b"030123456\n" + json.dumps([_entry(started_at=1.8e9, ended_at=1.8e9 + 9)]).encode(),
    b"0049301234567\n[]",
    b"+12125550123\n" + json.dumps([_entry(limit_s=-1e9), _entry(started_at=None)]).encode(),
    b"112",
    b"*98",
    b"01149301234567",
]
SOUNDS = [
    b"\x09" + wav(2, 8000, struct.pack("<400h", *range(-200, 200))),
    b"\x09" + wav(1, 8000, bytes(1700)),
    b"\xff" + wav(2, 48_000, bytes(4 * 60)),
    b"\x00" + wav(2, 8000, b"", kind=0xFFFE),
]


def _head(**changed: object) -> bytes:
    return json.dumps({"recording": "guessed", "file": FORGED, "piece": 0, "last": True, **changed}).encode()


HEADS = [
    _head(),
    _head(last=False) + b"\n" + _head(piece=1),
    _head(recording=SECRET),
    _head(recording=""),
    b"!-----BEGIN AGE ENCRYPTED FILE-----\n!-----END AGE ENCRYPTED FILE-----",
    b"[]",
]

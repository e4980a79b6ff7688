"""Sealed files, read back with age's own package and with ours; what was done to them meanwhile is found out."""

from __future__ import annotations

import io
import stat
import wave
from pathlib import Path

import pyrage
import pytest

from ari_app.errors import ConfigError
from ari_app.record.files import SealedFile, create
from ari_app.record.seal import Opener, Tampered, messages, piece_of, seal_for
from ari_app.record.wav import GrowingWav

IDENTITY = pyrage.x25519.Identity.generate()
KEY = str(IDENTITY.to_public())
NAME = "events.jsonl"


def sealed_pieces(folder: Path, name: str = NAME, recording: str = "s3cret") -> list[bytes]:
    """A file of four pieces, the last of which says that it is."""
    file = SealedFile(folder / name, seal_for(KEY), recording)
    for piece in (b"one\n", b"two\n", b"three\n"):
        file.append(piece)
    file.close()
    return list(messages((folder / f"{name}.age").read_bytes()))


def test_a_sealed_file_is_for_the_owner_of_the_private_key_only(tmp_path: Path) -> None:
    file = create(tmp_path / NAME, seal_for(KEY))
    file.append(b"secret words\n")
    file.append(b"more of them\n")
    path = tmp_path / f"{NAME}.age"
    sealed = path.read_bytes()
    assert isinstance(file, SealedFile) and b"secret" not in sealed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    opened = Opener(f"# created: today\n{IDENTITY}\n").open(NAME, sealed)
    assert (opened.plain, opened.complete) == (b"secret words\nmore of them\n", False), "it is not closed yet"
    with pytest.raises(ConfigError, match="another key"):
        Opener(str(pyrage.x25519.Identity.generate())).open(NAME, sealed)
    file.close()
    opened = Opener(str(IDENTITY)).open(NAME, path.read_bytes())
    assert (opened.plain, opened.complete) == (b"secret words\nmore of them\n", True)


def test_each_message_is_age_s_own(tmp_path: Path) -> None:
    """Any other age program opens it."""
    plain = [pyrage.decrypt(piece, [IDENTITY]) for piece in sealed_pieces(tmp_path)]
    assert [piece.partition(b"\n")[2] for piece in plain] == [b"one\n", b"two\n", b"three\n", b""]


@pytest.mark.parametrize("cut_bytes", [1, 30, 200])
def test_what_a_killed_process_left_is_opened_as_far_as_it_goes(tmp_path: Path, cut_bytes: int) -> None:
    whole = b"".join(sealed_pieces(tmp_path)[:3])
    opened = Opener(str(IDENTITY)).open(NAME, whole[:-cut_bytes])
    assert (opened.plain, opened.complete) == (b"one\ntwo\n", False)
    opened = Opener(str(IDENTITY)).open(NAME, whole)
    assert (opened.plain, opened.complete) == (b"one\ntwo\nthree\n", False)


def stranger(number: int, *, last: bool) -> bytes:
    """A piece by somebody who has the public key and does not know the recording's secret."""
    return seal_for(KEY)(piece_of("guessed", NAME, number, last=last) + b"forged\n")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda p: p[1:], "piece 1 is missing"),
        (lambda p: [p[0], *p[2:]], "piece 2 is missing"),
        (lambda p: [p[0], p[2], p[1], p[3]], "piece 2 is missing, or out of order"),
        (lambda p: [p[0], p[0], *p[1:]], "piece 2 is missing, or out of order"),
        (lambda p: [p[0], stranger(1, last=False), *p[2:]], "piece 2 is of another file"),
        (lambda p: [*p[:2], stranger(2, last=True)], "piece 3 is of another file"),
        (lambda p: [*p, stranger(4, last=True)], "more behind its end"),
        (lambda p: [*p, b"-----BEGIN"], "more behind its end"),
        (lambda p: [p[0], seal_for(KEY)(b"no head\n"), *p[2:]], "piece 2 is none of ours"),
        (lambda p: [p[0], p[1][:200] + b"AAAA" + p[1][204:], *p[2:]], "piece 2 can't be opened"),
    ],
)
def test_what_was_done_to_a_sealed_file_is_found_out(tmp_path: Path, change: object, wanted: str) -> None:
    assert callable(change)
    changed = b"".join(change(sealed_pieces(tmp_path)))
    with pytest.raises(Tampered, match=wanted):
        Opener(str(IDENTITY)).open(NAME, changed)


def test_files_are_not_exchanged(tmp_path: Path) -> None:
    """Neither within a recording nor between two."""
    (tmp_path / "other").mkdir()
    log, words = sealed_pieces(tmp_path), sealed_pieces(tmp_path, "full_transcript.txt")
    foreign = sealed_pieces(tmp_path / "other", recording="another")
    opener = Opener(str(IDENTITY))
    assert opener.open(NAME, b"".join(log)).complete
    with pytest.raises(Tampered, match="another file"):
        opener.open(NAME, b"".join(words))
    with pytest.raises(Tampered, match="another file"):
        opener.open(NAME, b"".join(foreign))


@pytest.mark.parametrize("guessed", [b'""', b"null", b"0", b"[]", b"guessed"])
def test_a_forged_file_that_is_opened_first_does_not_pass_for_one_of_the_recording(
    tmp_path: Path, guessed: bytes
) -> None:
    """Who forges a file does not know the recording's secret, but may leave it empty."""
    head = b'{"recording": ' + guessed + b', "file": "audio.wav", "piece": 0, "last": true}\n'
    genuine = b"".join(sealed_pieces(tmp_path))
    opener = Opener(str(IDENTITY))
    with pytest.raises(Tampered, match="another file|none of ours"):
        opener.open("audio.wav", seal_for(KEY)(head + b"forged"))
        opener.open(NAME, genuine)


def test_a_head_without_ground_is_none_of_ours() -> None:
    with pytest.raises(Tampered, match="none of ours"):
        Opener(str(IDENTITY)).open(NAME, seal_for(KEY)(b"[" * 100_000 + b"\n"))


def test_a_sealed_recording_can_be_played(tmp_path: Path) -> None:
    sound = GrowingWav(SealedFile(tmp_path / "a.wav", seal_for(KEY)), channels=2)
    sound.write(bytes(range(200)) * 4)
    sound.close()
    opened = Opener(str(IDENTITY)).open("a.wav", (tmp_path / "a.wav.age").read_bytes())
    with wave.open(io.BytesIO(opened.plain)) as reader:
        assert (reader.getnchannels(), reader.getframerate()) == (2, 8000)
        assert reader.readframes(10**6) == bytes(range(200)) * 4


@pytest.mark.parametrize(
    "key",
    ["", "age1nonsense", "ssh-ed25519 AAAA", str(IDENTITY)],
    ids=["nothing", "nonsense", "ssh", "the private one"],
)
def test_what_is_no_key_is_said(key: str) -> None:
    with pytest.raises(ConfigError, match="age-keygen"):
        seal_for(key)
    with pytest.raises(ConfigError, match="--identity"):
        Opener(KEY)

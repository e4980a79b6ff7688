"""Files that grow, plain and sealed; sealed ones read back with age's own package."""

from __future__ import annotations

import io
import stat
import wave
from pathlib import Path

import pyrage
import pytest

from ari_app.errors import ConfigError
from ari_app.record.files import PlainFile, SealedFile, create, messages, opener_of, seal_for
from ari_app.record.wav import GrowingWav

IDENTITY = pyrage.x25519.Identity.generate()
KEY = str(IDENTITY.to_public())


def test_a_plain_file_grows_and_is_patched(tmp_path: Path) -> None:
    file = create(tmp_path / "a", None)
    file.append(b"hello ")
    file.append(b"world")
    file.patch(0, b"J")
    file.append(b"!")
    assert (tmp_path / "a").read_bytes() == b"Jello world!", "at any moment"
    file.close()
    assert isinstance(file, PlainFile)
    with pytest.raises(FileExistsError):
        create(tmp_path / "a", None)


def test_a_sealed_file_is_for_the_owner_of_the_private_key_only(tmp_path: Path) -> None:
    file = create(tmp_path / "events.jsonl", seal_for(KEY))
    file.append(b"secret words\n")
    file.append(b"more of them\n")
    path = tmp_path / "events.jsonl.age"
    sealed = path.read_bytes()
    assert isinstance(file, SealedFile) and b"secret" not in sealed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert opener_of(f"# created: today\n{IDENTITY}\n")(sealed) == b"secret words\nmore of them\n"
    assert opener_of(str(IDENTITY))(sealed[:-30]) == b"secret words\n", "as a killed process left it"
    with pytest.raises(ConfigError, match="another key"):
        opener_of(str(pyrage.x25519.Identity.generate()))(sealed)
    file.close()


def test_each_message_is_age_s_own(tmp_path: Path) -> None:
    """What any other age program opens."""
    file = SealedFile(tmp_path / "a", seal_for(KEY))
    file.append(b"one")
    file.append(b"two")
    file.close()
    parts = messages((tmp_path / "a.age").read_bytes())
    assert [pyrage.decrypt(part, [IDENTITY]) for part in parts] == [b"one", b"two"]


def test_a_sealed_recording_can_be_played(tmp_path: Path) -> None:
    sound = GrowingWav(SealedFile(tmp_path / "a.wav", seal_for(KEY)), channels=2)
    sound.write(bytes(range(200)) * 4)
    sound.close()
    opened = opener_of(str(IDENTITY))((tmp_path / "a.wav.age").read_bytes())
    with wave.open(io.BytesIO(opened)) as reader:
        assert (reader.getnchannels(), reader.getframerate()) == (2, 8000)
        assert reader.readframes(10**6) == bytes(range(200)) * 4


@pytest.mark.parametrize("key", ["", "age1nonsense", "ssh-ed25519 AAAA", str(IDENTITY)])
def test_what_is_no_key_is_said(key: str) -> None:
    with pytest.raises(ConfigError, match="age-keygen"):
        seal_for(key)
    with pytest.raises(ConfigError, match="--identity"):
        opener_of(KEY)

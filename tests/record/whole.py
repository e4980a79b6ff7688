"""What holds of a call's files at any moment, also after a kill or on a full disk: each is whole as far as it goes."""

from __future__ import annotations

import json
import re
import struct
import wave
from pathlib import Path

NAME = re.compile(
    r"full_call\.(wav|vtt)|full_transcript\.txt|events\.jsonl|\.recording"
    r"|transcript_\d{3}_(user|assistant)(_\d+)?\.txt|(segment|response)_\d{3}(_\d+)?\.wav"
)
CUE = re.compile(r"(\d\d):(\d\d):(\d\d\.\d{3}) --> (\d\d):(\d\d):(\d\d\.\d{3})\n<v (Caller|Bot)>([^\n]*)")


def assert_whole(folder: Path, *, killed: bool = False) -> None:
    """Every sound can be played, every line and every cue is complete, and no file has a name of its own.

    With `killed` the last second of sound may lie behind what the header tells.
    """
    for path in folder.iterdir():
        assert NAME.fullmatch(path.name), path
        assert path.stat().st_mode & 0o777 == 0o600, path
        if path.suffix == ".wav":
            assert_playable(path, extra_bytes=32_000 if killed else 0)
    lines = (folder / "events.jsonl").read_text("utf-8")
    assert lines.endswith("\n")
    events = [json.loads(line) for line in lines.splitlines()]
    assert events[0]["event"] == "call" and all("audio_ms" in event for event in events)
    if not (folder / "full_transcript.txt").exists():
        assert {path.name for path in folder.iterdir()} <= {"events.jsonl", ".recording"}, "nobody spoke"
        return
    transcript = (folder / "full_transcript.txt").read_text("utf-8")
    assert transcript.endswith("\n\n")
    blocks = transcript.removesuffix("\n\n").split("\n\n")
    assert blocks[0].startswith("SYSTEM:")
    assert all(re.match("(USER|ASSISTANT): ", block) for block in blocks[1:])
    assert len(blocks) - 2 <= len(cues(folder)) <= len(blocks) - 1, (
        "a cue for what was said, but maybe the last"
    )


def assert_playable(path: Path, *, extra_bytes: int = 0) -> None:
    """The header (RIFF WAVE, format 1) tells what is there; a killed process may leave `extra_bytes` more."""
    data = path.read_bytes()
    riff, riff_bytes, kind = struct.unpack_from("<4sI4s", data)
    tag, data_bytes = struct.unpack_from("<4sI", data, 36)
    assert (riff, kind, tag) == (b"RIFF", b"WAVE", b"data"), path
    assert riff_bytes == 36 + data_bytes, path
    assert 44 + data_bytes <= len(data) <= 44 + data_bytes + extra_bytes, path
    with wave.open(str(path)) as file:
        assert file.getframerate() == 8000
        assert len(file.readframes(file.getnframes())) == data_bytes


def cues(folder: Path) -> list[tuple[float, float, str, str]]:
    """Begin and end (s), voice and words of each cue of the subtitles (WebVTT, section 4)."""
    header, *rest, last = (folder / "full_call.vtt").read_text("utf-8").split("\n\n")
    assert (header, last) == ("WEBVTT", ""), "the file begins with its name and ends with a cue"
    found: list[tuple[float, float, str, str]] = []
    for cue in rest:
        match = CUE.fullmatch(cue)
        assert match is not None, cue
        assert not re.search("[<>]|&(?!amp;|lt;|gt;)", match[8]), cue
        numbers = [float(part) for part in match.groups()[:6]]
        begin, end = (h * 3600 + m * 60 + s for h, m, s in (numbers[:3], numbers[3:]))
        assert begin < end and (not found or begin >= found[-1][0]), cue
        found.append((begin, end, match[7], match[8]))
    return found

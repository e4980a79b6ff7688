"""Files that grow, on disks with room and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ari_app.record.files import PlainFile, create
from tests.fakes.small_disk import on_small_disk


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


def test_room_behind_the_end_is_nobody_s_content(tmp_path: Path) -> None:
    file = PlainFile(tmp_path / "a")
    assert file.has_room(10)
    file.append(b"some words")
    assert (tmp_path / "a").read_bytes() == b"some words"
    taken = (tmp_path / "a").stat().st_blocks
    file.close()
    assert (tmp_path / "a").read_bytes() == b"some words"
    assert (tmp_path / "a").stat().st_blocks < taken, "what was kept free is given back"


def test_on_a_full_disk_there_is_room_for_the_last_words_and_pieces_are_whole(tmp_path: Path) -> None:
    said = on_small_disk(
        tmp_path,
        256,
        """
        import json
        from ari_app.record.files import PlainFile
        log, sound = PlainFile(disk / "log"), PlainFile(disk / "sound")
        assert log.has_room(100)
        refused = None
        while refused is None:
            try:
                sound.append(b"s" * 30001)
            except OSError as error:
                refused = error.strerror
        lines = 0
        while log.has_room(100):
            log.append(b"l" * 99 + b"\\n")
            lines += 1
        log.append(b"L" * 3999 + b"\\n")
        sizes = [(disk / name).stat().st_size for name in ("log", "sound")]
        log.close()
        print(json.dumps([refused, lines, *sizes]))
        """,
    )
    refused, lines, log_bytes, sound_bytes = json.loads(said)
    assert refused == "No space left on device"
    assert sound_bytes > 100_000 and sound_bytes % 30001 == 0, "not half a piece"
    assert lines > 10 and log_bytes == 100 * lines + 4000

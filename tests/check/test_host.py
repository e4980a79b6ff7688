"""This machine's part of `check`: ports, open files, disk, what may be dialled."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ari_app.check.findings import EXIT_CONFIG, EXIT_FAILED, Finding, Level
from ari_app.check.host import check_dialling, check_disk, check_ports, disk_finding
from ari_app.config import Config, load
from ari_app.guard import Rules
from ari_app.ledger import Ledger

HOUR_BYTES = 250_000_000


def config(**settings: str) -> Config:
    return load({}, settings, {})


# --- ports -------------------------------------------------------------------------------------------


@contextmanager
def open_files(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_every_range_has_room() -> None:
    with open_files(1024):
        (free,) = check_ports(config(MAX_CALLS="20"), {})
        settings = {"SIP_RTP_PORTS": "10000-10199"}
        (ranges,) = check_ports(config(MAX_CALLS="20", RTP_PORTS="40000-40019"), settings)
    assert free.level is Level.OK and "any free port" in free.text
    assert ranges.level is Level.OK
    assert "RTP_PORTS has 20 ports" in ranges.text and "SIP_RTP_PORTS has 200 ports" in ranges.text
    assert ranges.figures == {"max_calls": 20}


def test_our_range_is_too_small() -> None:
    with open_files(1024):
        (finding,) = check_ports(config(MAX_CALLS="20", RTP_PORTS="40000-40009"), {})
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_CONFIG)
    assert finding.text == "RTP_PORTS has room for 10 calls, and MAX_CALLS is 20"
    assert "20 ports" in finding.remedy and "MAX_CALLS=10" in finding.remedy


@pytest.mark.parametrize(("ports", "calls"), [("10000-10078", 16), ("10000-10001", 0)])
def test_asterisk_s_range_is_too_small(ports: str, calls: int) -> None:
    with open_files(1024):
        (finding,) = check_ports(config(MAX_CALLS="20"), {"SIP_RTP_PORTS": ports})
    assert finding.level is Level.FAILED
    assert finding.text == f"SIP_RTP_PORTS has room for {calls} calls, and MAX_CALLS is 20"
    assert "96 ports" in finding.remedy and f"MAX_CALLS={calls or 1}" in finding.remedy


@pytest.mark.parametrize("ports", ["", None, "any", "1-", "-"])
def test_a_range_that_is_none_is_the_renderer_s_business(ports: str | None) -> None:
    with open_files(1024):
        (finding,) = check_ports(config(), {"SIP_RTP_PORTS": ports})
    assert finding.level is Level.OK


def test_too_few_open_files() -> None:
    with open_files(300):
        (finding,) = check_ports(config(MAX_CALLS="20"), {})
    assert finding.level is Level.WARNING
    assert "300 open files are too few for 20 calls" in finding.text
    assert "384" in finding.remedy


# --- recordings --------------------------------------------------------------------------------------


def test_nothing_is_recorded() -> None:
    assert check_disk(config()).level is Level.SKIPPED


def test_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    finding = check_disk(config(SAVE_RECORDINGS="yes", RECORDINGS_DIR=str(tmp_path / "a" / "b")))
    assert finding.level is Level.OK and str(tmp_path / "a" / "b") in finding.text
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = check_disk(config(SAVE_RECORDINGS="yes", RECORDINGS_DIR=str(tmp_path / "file" / "b")))
    assert finding.level is Level.FAILED
    assert "can't be written" in finding.text and "RECORDINGS_DIR" in finding.remedy


@pytest.mark.parametrize(
    ("hours", "level"),
    [(25, Level.OK), (24, Level.OK), (23, Level.WARNING), (1, Level.WARNING), (0.9, Level.FAILED)],
)
def test_the_disk_fills(hours: float, level: Level) -> None:
    finding = disk_finding(Path("/recordings"), int(hours * HOUR_BYTES))
    assert finding.level is level
    assert finding.figures == {"free_bytes": int(hours * HOUR_BYTES), "hours": hours}
    assert bool(finding.remedy) is (level is not Level.OK)


# --- dialling ----------------------------------------------------------------------------------------


def dialling(folder: Path, number: str | None = None, **settings: str) -> Finding:
    return check_dialling(config(**settings), folder, number)


def test_what_may_be_called_is_said(tmp_path: Path) -> None:
    assert dialling(tmp_path).text.startswith("may call: nobody;")
    usual = dialling(tmp_path, DIAL_EXTENSION_DIGITS="4")
    assert usual.level is Level.OK
    assert usual.text == "may call: extensions of up to 4 digits; 120 of 120 minutes are left"
    opened = dialling(tmp_path, COUNTRY_CODE="44", DIAL_ALLOW="+1555")
    assert opened.text.startswith("may call: +44, +1555;")


def test_one_number(tmp_path: Path) -> None:
    allowed = dialling(tmp_path, "+15551234567", DIAL_ALLOW="+1555")
    assert allowed.level is Level.OK and allowed.text.startswith("+15551234567 may be called;")
    for number, said in (("+15551234567", "DIAL_ALLOW=+1"), ("12 34", "'12 34' is not a number to call")):
        refused = dialling(tmp_path, number)
        assert (refused.level, refused.exit_code) == (Level.FAILED, EXIT_CONFIG)
        assert said in refused.text and not refused.text.endswith(".")


def test_a_limit_is_reached(tmp_path: Path) -> None:
    with Ledger(tmp_path, Rules()).call("a", 60):
        finding = dialling(tmp_path, DIAL_CONCURRENT="1")
    assert finding.level is Level.WARNING and "DIAL_CONCURRENT" in finding.text


def test_the_ledger_can_not_be_kept_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = dialling(tmp_path / "file")
    assert (finding.level, finding.exit_code) == (Level.FAILED, EXIT_FAILED)
    assert "XDG_STATE_HOME" in finding.remedy
    (tmp_path / "dialled").mkdir()
    (tmp_path / "dialled" / "ledger.json").write_text("{")
    damaged = dialling(tmp_path)
    assert damaged.level is Level.FAILED
    assert "is damaged: delete it" in damaged.text and damaged.remedy == ""

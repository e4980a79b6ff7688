"""This machine: ports against limits, disk, the state directory, what may be dialled. Shell."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

from ari_app.ari.streams import calls_in, ports_for, streams_in
from ari_app.check.findings import EXIT_CONFIG, Finding, Level
from ari_app.config import Config
from ari_app.errors import AriAppError
from ari_app.guard import is_number, refusal
from ari_app.ledger import Ledger

FILES_PER_CALL = 16
FILES_FOR_ALL = 64
RECORDING_BYTES_PER_HOUR = 250e6
"""Stereo of the call, and each turn once more, at 8 kHz."""
LOW_HOURS, NO_HOURS = 24.0, 1.0


def check_ports(config: Config, environ: Mapping[str, str | None]) -> list[Finding]:
    """Room for MAX_CALLS in every range and limit that calls take from."""
    calls = config.max_calls
    findings = []
    if config.rtp_ports is not None:
        low, high = config.rtp_ports
        ports = high - low + 1
        findings.append(_room("RTP_PORTS", ports, ports, calls, needed=calls))
    low_text, _, high_text = (environ.get("SIP_RTP_PORTS") or "").partition("-")
    if low_text.isdecimal() and high_text.isdecimal():
        ports = int(high_text) - int(low_text) + 1
        room = calls_in(streams_in(low_text, high_text))
        findings.append(_room("SIP_RTP_PORTS", ports, room, calls, needed=ports_for(calls)))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < FILES_FOR_ALL + FILES_PER_CALL * calls:
        text = f"{files} open files are too few for {calls} calls"
        remedy = (
            f"raise the limit (ulimit -n) to {FILES_FOR_ALL + FILES_PER_CALL * calls}, or lower MAX_CALLS"
        )
        findings.append(Finding("ports", Level.WARNING, text, remedy))
    if all(finding.level is Level.OK for finding in findings):
        where = " and ".join(finding.text for finding in findings) or "RTP takes any free port"
        return [
            Finding(
                "ports",
                Level.OK,
                f"room for {calls} calls (MAX_CALLS): {where}",
                figures={"max_calls": calls},
            )
        ]
    return [finding for finding in findings if finding.level is not Level.OK]


def _room(setting: str, ports: int, room: int, calls: int, *, needed: int) -> Finding:
    if room >= calls:
        return Finding("ports", Level.OK, f"{setting} has {ports} ports")
    return Finding(
        "ports",
        Level.FAILED,
        f"{setting} has room for {room} calls, and MAX_CALLS is {calls}",
        f"widen {setting} to {needed} ports, or set MAX_CALLS={max(room, 1)}",
        exit_code=EXIT_CONFIG,
    )


def check_disk(config: Config) -> Finding:
    """Room and rights for recordings."""
    if not config.save_recordings:
        return Finding("recordings", Level.SKIPPED, "nothing is recorded (SAVE_RECORDINGS)")
    folder = Path(config.recordings_dir).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = "let this user write there, or set RECORDINGS_DIR to another folder"
        return Finding("recordings", Level.FAILED, f"{folder} can't be written", remedy)
    return disk_finding(folder, shutil.disk_usage(existing).free)


def disk_finding(folder: Path, free_bytes: int) -> Finding:
    """The verdict on the room for recordings."""
    hours = free_bytes / RECORDING_BYTES_PER_HOUR
    text = f"{free_bytes / 1e9:.1f} GB free in {folder}, about {hours:.0f} hours of calls"
    figures = {"free_bytes": free_bytes, "hours": round(hours, 1)}
    if hours < LOW_HOURS:
        level = Level.FAILED if hours < NO_HOURS else Level.WARNING
        return Finding("recordings", level, text, "delete old recordings, or add disk space", figures)
    return Finding("recordings", Level.OK, text, figures=figures)


def check_dialling(config: Config, state_dir: Path, number: str | None) -> Finding:
    """Whether `dial` would be let, for one number or at all."""
    rules = config.dial_rules
    if number is not None and (reason := _forbidden(config, number)) is not None:
        return Finding("dialling", Level.FAILED, reason.rstrip("."), exit_code=EXIT_CONFIG)
    ledger = Ledger(state_dir, rules)
    try:
        reason = ledger.why_not()
        left_min = ledger.remaining_s() / 60
    except AriAppError as error:
        is_ours = isinstance(error.__cause__, OSError)  # else the text says what to do
        remedy = "let this user write to the state directory (XDG_STATE_HOME)" if is_ours else ""
        return Finding("dialling", Level.FAILED, str(error), remedy)
    figures = {"minutes_left": round(left_min, 1)}
    if reason is not None:
        return Finding("dialling", Level.WARNING, reason.rstrip("."), figures=figures)
    ranges = [f"extensions of up to {rules.extension_digits} digits"] if rules.extension_digits else []
    ranges += [f"+{rules.country_code}"] if rules.country_code else []
    open_to = ", ".join([*ranges, *rules.allow]) or "nobody"
    who = f"{number} may be called" if number is not None else f"may call: {open_to}"
    text = f"{who}; {left_min:.0f} of {rules.daily_minutes} minutes are left"
    return Finding("dialling", Level.OK, text, figures=figures)


def _forbidden(config: Config, number: str) -> str | None:
    if not is_number(number):
        return f"'{number}' is not a number to call."
    return refusal(number, config.dial_rules)

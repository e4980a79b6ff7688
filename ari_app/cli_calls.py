"""The command `calls`: what past calls left, read from their files; no server is needed. Shell."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ari_app.errors import ConfigError
from ari_app.record import report
from ari_app.record.archive import Archive, PastCall, read_events, summary
from ari_app.record.folder import goes_on
from ari_app.record.plot import plot
from ari_app.record.seal import SEALED_SUFFIX, Opener, Tampered
from ari_app.record.wav import HEADER_BYTES, header
from ari_app.texts import shown

LISTED = 20
CHANNELS, RATE_HZ = 22, 24
"""Where a WAV header holds them."""


def add_parser(commands: Any) -> None:
    """Describe the command to argparse."""
    parser = commands.add_parser("calls", help="past calls: list them, show one, statistics, a plot")
    parser.add_argument("--recordings-dir", dest="RECORDINGS_DIR", metavar="DIR", help="where they are")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="the latest calls, newest first (the default)")
    listing.add_argument("--limit", type=int, default=LISTED, help="how many (default: %(default)s)")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = actions.add_parser("show", help="what was said in one, and what each answer waited for")
    stats = actions.add_parser("stats", help="waits, lengths, outcomes and cost over a time")
    stats.add_argument("--days", type=_days, default=7, help="the last so many days (default: %(default)s)")
    picture = actions.add_parser("plot", help="draw one: both voices, words, waits")
    picture.add_argument("--output", metavar="FILE", help="an .svg or .png file (default: CALL.svg)")
    unseal = actions.add_parser("unseal", help="open a sealed recording with its private key")
    unseal.add_argument("--identity", required=True, metavar="FILE", help="the age private key")
    unseal.add_argument("--to", required=True, metavar="DIR", help="where the opened files go")
    for action in (show, picture, unseal):
        action.add_argument("call", help="call id, its beginning, or the folder's name")


def run(arguments: argparse.Namespace, recordings: Path) -> int:
    """Carry out the command; returns the exit code.

    Raises:
        ConfigError: there is no such call, or the file can't be written.
    """
    archive = Archive(recordings)
    try:
        _ACTIONS[arguments.action or "list"](arguments, archive)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough; the interpreter flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 < days < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of days above 0")
    return days


def _say(lines: list[str]) -> None:
    """Names and words come from callers: none of them steers the terminal."""
    print("\n".join(map(shown, lines)))


def _list(arguments: argparse.Namespace, archive: Archive) -> None:
    calls = list(archive.calls(limit=max(getattr(arguments, "limit", LISTED), 1)))
    if getattr(arguments, "json", False):
        json.dump(
            [{**asdict(call), "started": call.started.isoformat()} for call in calls], sys.stdout, indent=2
        )
        print()
    else:
        _say(report.table(calls))


def _folder(arguments: argparse.Namespace, archive: Archive) -> Path:
    folder = archive.find(arguments.call)
    if folder is None:
        raise ConfigError(
            f"there is no recording '{arguments.call}', or several begin so: see the list of `calls`."
        )
    return folder


def _read(folder: Path) -> tuple[PastCall, list[dict[str, Any]]]:
    events = read_events(folder)
    call = summary(folder.name, events)
    if call is None:
        sealed = any(folder.glob(f"*{SEALED_SUFFIX}"))
        raise ConfigError(
            f"{folder} is sealed: open it with `calls unseal`." if sealed else f"{folder} holds no log."
        )
    return replace(call, goes_on=goes_on(folder) and not call.outcome), events


def _show(arguments: argparse.Namespace, archive: Archive) -> None:
    _say(report.story(*_read(_folder(arguments, archive))))


def _stats(arguments: argparse.Namespace, archive: Archive) -> None:
    try:
        since = datetime.now(UTC) - timedelta(days=arguments.days)
    except OverflowError:  # before all calendars
        since = None
    _say(report.stats(list(archive.calls(since=since))))


def _plot(arguments: argparse.Namespace, archive: Archive) -> None:
    folder = _folder(arguments, archive)
    call, events = _read(folder)
    output = Path(arguments.output or f"{call.call}.svg")
    try:
        plot(call, folder, events, output)
    except OSError as error:
        raise ConfigError(f"--output {output} can't be written: {error.strerror}.") from None
    print(output)


def _unseal(arguments: argparse.Namespace, archive: Archive) -> None:
    folder = _folder(arguments, archive)
    target = Path(arguments.to) / folder.name
    try:
        opener = Opener(Path(arguments.identity).read_text(encoding="utf-8"))
        sealed = sorted(folder.glob(f"*{SEALED_SUFFIX}"))
        if not sealed:
            raise ConfigError(f"{folder} is not sealed.")
        if target.exists():
            raise ConfigError(f"{target} is there already.")
        target.parent.mkdir(parents=True, exist_ok=True)
        opened = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=target.parent))  # mode 0700
        try:
            complaints = [complaint for path in sealed if (complaint := _open(opener, path, opened))]
            opened.rename(target)  # whole, or not at all
        except BaseException:
            shutil.rmtree(opened)
            raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recording can't be opened: {error}.") from None
    print(target)
    if complaints:
        raise Tampered(f"{'; '.join(complaints)}; the rest is in {target}.")


def _open(opener: Opener, path: Path, folder: Path) -> str:
    """Open one file into the folder; returns what was done to it by somebody else, then without the file."""
    name = path.name.removesuffix(SEALED_SUFFIX)
    try:
        opened = opener.open(name, path.read_bytes())
    except Tampered as error:
        return str(error)
    if not opened.complete:
        print(f"{name} has no end: the call goes on, the process was killed, or somebody cut it off")
    plain = _mended(opened.plain) if name.endswith(".wav") else opened.plain
    descriptor = os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(descriptor, "wb") as file:
        file.write(plain)
    return ""


def _mended(wav: bytes) -> bytes:
    """With the length in its header, which was not known when it was sealed."""
    if len(wav) < HEADER_BYTES:
        return wav
    channels = int.from_bytes(wav[CHANNELS : CHANNELS + 2], "little")
    rate_hz = int.from_bytes(wav[RATE_HZ : RATE_HZ + 4], "little")
    return header(len(wav) - HEADER_BYTES, channels, rate_hz) + wav[HEADER_BYTES:]


_ACTIONS: dict[str, Callable[[argparse.Namespace, Archive], None]] = {
    "list": _list,
    "show": _show,
    "stats": _stats,
    "plot": _plot,
    "unseal": _unseal,
}

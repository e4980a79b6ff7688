"""One call as a picture: both voices, what was said, and what each answer waited for. Shell."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ari_app.dialog.waterfall import STAGES, Stage, waterfall
from ari_app.errors import ConfigError
from ari_app.record.archive import PastCall
from ari_app.record.events import Event, number_of, numbers_of, text_of
from ari_app.record.folder import AUDIO
from ari_app.record.peaks import peaks_of
from ari_app.record.report import begin_of
from ari_app.texts import clean, one_line

CALLER, BOT, INTERRUPTED = "#2b6cb0", "#1f6f5c", "#b3261e"
COLOURS = dict(
    zip(
        (name for name, _ in STAGES),
        ("#d9d9d9", "#c9d6e8", "#8fb3d9", "#f0c36d", "#d98f5c", "#7cb89f"),
        strict=True,
    )
)
"""Of the stages."""
COLUMNS = 2400
"""Of the waveforms."""
INCHES_PER_S, LEAST_INCHES, MOST_INCHES = 0.35, 9.0, 60.0


def plot(call: PastCall, folder: Path, events: Sequence[Event], output: Path) -> None:
    """Draw a call into an SVG or PNG file, by its suffix.

    Raises:
        ConfigError: matplotlib is missing, the sound is, or the file is of another kind.
        OSError: the file can't be written.
    """
    if output.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"--output {output}: name a file that ends in .svg or .png.")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'ari_app[plot]'.") from None
    try:
        peaks = peaks_of(folder / AUDIO, COLUMNS)
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no sound: it is sealed, or was not kept.") from None
    except ValueError as fault:
        raise ConfigError(f"{folder / AUDIO} is {fault}.") from None
    seconds, caller, bot = peaks.seconds, peaks.caller, peaks.bot
    lasted = max(seconds, call.seconds, 1)  # the sound may have ended before the call
    width = min(max(lasted * INCHES_PER_S, LEAST_INCHES), MOST_INCHES)
    figure = Figure(figsize=(width, 5.2), layout="constrained")
    voices, waits = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    times = np.linspace(0, seconds, len(caller))
    voices.fill_between(times, 1.1 - caller, 1.1 + caller, color=CALLER, linewidth=0)
    voices.fill_between(times, -1.1 - bot, -1.1 + bot, color=BOT, linewidth=0)
    voices.set_yticks((1.1, -1.1), ("caller", "bot"))
    voices.set_ylim(-3.4, 3.4)
    about = f"{call.direction} call {call.call}, {call.started:%Y-%m-%d %H:%M}, {call.reason}"
    voices.set_title(one_line(about, 200), fontsize=9, parse_math=False)
    _write_words(voices, events)
    _draw_waits(waits, events)
    waits.set_xlabel("seconds")
    waits.set_xlim(0, lasted)
    figure.savefig(output, dpi=120)


def _write_words(axes: Any, events: Sequence[Event]) -> None:
    onset = began = None
    for event in events:
        match event["event"]:
            case "caller_speech_started":
                onset = number_of(event, "onset_at") if onset is None else onset
            case "bot_speech_started":
                began = number_of(event, "at")
            case "caller_said":
                _write(axes, begin_of(event, onset), 2.35, text_of(event, "text"), CALLER)
                onset = None
            case "bot_said":
                colour = INTERRUPTED if event.get("interrupted") else BOT
                _write(axes, begin_of(event, began), -2.35, text_of(event, "heard"), colour)
                began = None
            case "barge_in":
                axes.axvline(number_of(event, "onset_at") or 0, color=INTERRUPTED, linewidth=1)
            case "barge_in_dismissed":
                axes.axvline(number_of(event, "at") or 0, color=INTERRUPTED, linewidth=0.7, linestyle=":")


def _write(axes: Any, at: float | None, height: float, text: str, colour: str) -> None:
    if at is not None:
        short = textwrap.shorten(clean(text), 110, placeholder=" …")
        words = axes.text(at, height, textwrap.fill(short, 28), fontsize=6, color=colour, va="center")
        words.set(clip_on=True, in_layout=False, parse_math=False)  # "$5 or $6" is no formula


def _draw_waits(axes: Any, events: Sequence[Event]) -> None:
    """What each answer waited for, and below it what was done meanwhile, or in vain."""
    labelled: set[str] = set()

    def draw(row: int, began: float, stage: Stage) -> None:
        label = None if stage.name in labelled else stage.name
        labelled.add(stage.name)
        colour, left = COLOURS[stage.name], began + stage.begin_ms / 1000
        axes.barh(row, stage.ms / 1000, left=left, color=colour, label=label)

    for event in events:
        if event["event"] == "speculated":
            _mark_guess(axes, event)
        spoken = number_of(event, "speech_end_at")
        if event["event"] != "turn_timed" or spoken is None:
            continue
        fall = waterfall(numbers_of(event))
        for stage in fall.stages:
            draw(0, spoken, stage)
        for stage in fall.ahead:
            draw(-1, spoken, stage)
        if fall.wait_ms is not None:
            axes.text(spoken, 0.55, f"{fall.wait_ms} ms", fontsize=6, clip_on=True, in_layout=False)
    axes.set_yticks((0, -1), ("wait", "in the pause"))
    axes.set_ylim(-1.6, 1.9)
    if labelled:
        drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        names = [name for name, _ in STAGES if name in drawn]
        handles = [drawn[name] for name in names]
        axes.legend(handles, names, loc="upper right", ncols=len(names), fontsize=6, frameon=False)


def _mark_guess(axes: Any, event: Event) -> None:
    """An answer was begun in a pause; when that was told it was kept or thrown away."""
    won, at = bool(event.get("won")), (number_of(event, "audio_ms") or 0) / 1000
    axes.plot([at], [-1], marker="o" if won else "x", color=BOT if won else INTERRUPTED, markersize=4)
    if not won:
        requests = number_of(event, "requests") or 0
        words = f"{requests:.0f} request{'s' * (requests != 1)} in vain"
        axes.text(at, -1.45, words, fontsize=5, color=INTERRUPTED, ha="center", clip_on=True, in_layout=False)

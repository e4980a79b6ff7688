"""Past calls in words: a table, one call's story, and how callers fared. Core."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ari_app.dialog.waterfall import waterfall
from ari_app.prices import UNCOUNTED
from ari_app.record.archive import PastCall
from ari_app.record.events import Event, number_of, numbers_of, text_of
from ari_app.texts import shown

BAR_WIDTH = 40
CUT_SHORT = "the process ended before the call"
SIGNS = {
    "silence window": ".",
    "speech-to-text": "=",
    "first word": "-",
    "first sentence": "~",
    "first speech": "+",
    "on the line": ">",
}
"""Of the stages in a bar."""


def table(calls: Iterable[PastCall]) -> list[str]:
    """A line for each call, newest first."""
    head = ("when", "call", "way", "number", "length", "turns", "wait", "cost", "ended")
    rows = [head, *(_row(call) for call in calls)]
    if len(rows) == 1:
        return ["No call was recorded; SAVE_RECORDINGS=yes keeps them."]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return ["  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1])) for row in rows]


def _row(call: PastCall) -> tuple[str, ...]:
    when = f"{call.started:%Y-%m-%d %H:%M}"
    if call.sealed or call.unreadable:
        state = "sealed" if call.sealed else "unreadable"
        return (when, call.call, "", state, "", "", "", "", "goes on" if call.goes_on else "")
    return (
        when,
        call.call,
        {"inbound": "in", "outbound": "out"}.get(call.direction, ""),
        call.number or "unknown",
        clock(call.seconds),
        str(call.turns),
        f"{call.wait_ms:.0f} ms" if call.wait_ms is not None else "",
        _dollars(call.cost_usd, call.cost_is_partial, "≥ "),
        call.outcome or ("goes on" if call.goes_on else f"cut short: {CUT_SHORT}"),
    )


def story(call: PastCall, events: Sequence[Event]) -> list[str]:
    """What was said, by whom, when, and what each answer waited for."""
    lines = [
        f"Call {call.call}, {call.direction or 'unknown direction'}, {call.number or 'unknown'}, "
        f"{call.started:%Y-%m-%d %H:%M:%S}, {clock(call.seconds)}",
        "",
    ]
    onset: float | None = None
    began: float | None = None
    for event in events:
        match event["event"]:
            case "caller_speech_started" if onset is None:
                onset = number_of(event, "onset_at")
            case "bot_speech_started":
                began = number_of(event, "at")
            case "caller_said":
                lines.append(_said(begin_of(event, onset), "caller", text_of(event, "text")))
                onset = None
            case "caller_not_understood":
                lines.append(_said(onset, "", f"(not understood: {text_of(event, 'reason') or 'no words'})"))
                onset = None
            case "bot_said":
                rest = " [interrupted]" if event.get("interrupted") else ""
                words = text_of(event, "heard" if rest else "text") + rest
                lines.append(_said(begin_of(event, began), "bot", words))
                began = None
            case "turn_timed":
                lines += _waterfall(numbers_of(event))
            case _:
                lines += _remark(event)
    lines.append("")
    if call.mos is not None:
        lines.append(f"Line: MOS {call.mos:.1f}")
    if call.unheard:
        lines.append("Line: no audio came from the caller, not one packet")
    lines += _costs(call, events)
    lines.append("It goes on." if call.goes_on else f"Ended: {call.reason or CUT_SHORT}")
    return lines


def begin_of(event: Event, otherwise: float | None) -> float | None:
    """When the words of the event were spoken."""
    onset = number_of(event, "onset_at")
    return otherwise if onset is None else onset


def _remark(event: Event) -> list[str]:
    """What else is worth a line."""
    match event["event"]:
        case "engine_failed":
            return [_said(None, "", f"(failed: {text_of(event, 'stage')}: {text_of(event, 'message')})")]
        case "barge_in_dismissed":
            waited_ms, words = number_of(event, "paused_ms") or 0, text_of(event, "words") or "noise"
            return [_said(number_of(event, "at"), "", f"(waited {waited_ms:.0f} ms for “{words}”)")]
        case "recording_paused" | "recording_resumed" | "recording_stopped":
            why = text_of(event, "reason")
            told = event["event"].replace("_", " ") + (f": {why}" if why else "")
            return [_said((number_of(event, "audio_ms") or 0) / 1000, "", f"({told})")]
    return []


def _dollars(usd: float | None, partial: bool, at_least: str = "at least ", digits: int = 4) -> str:
    if usd is None:
        return "unknown" if partial else ""
    return f"{at_least if partial else ''}${usd:.{digits}f}"


def _costs(call: PastCall, events: Sequence[Event]) -> list[str]:
    """What the call cost, and what each engine took for it."""
    used: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        if event["event"] == "engine_used":
            used.setdefault((text_of(event, "stage"), text_of(event, "model")), []).append(event)
    if not used:
        return []
    rows = []
    for (stage, model), requests in used.items():
        amounts: Counter[str] = Counter()
        for request in requests:
            told = request.get("amounts")
            counts: Event = told if isinstance(told, dict) else {}
            for kind in counts:
                amounts[kind] += round(number_of(counts, kind) or 0)
        known = [usd for request in requests if (usd := number_of(request, "cost_usd")) is not None]
        cost = _dollars(sum(known) if known else None, len(known) < len(requests))
        asked = f"{len(requests)} request{'s' * (len(requests) > 1)}"
        rows.append((shown(stage), shown(model), asked, cost, _amounts(amounts)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"Cost: {_dollars(call.cost_usd, call.cost_is_partial)}",
        *("  " + "  ".join((*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[-1])) for r in rows),
    ]


def _amounts(amounts: Counter[str]) -> str:
    """`12 s of sound, 812 text in, 95 text out; 2 not counted`."""
    told = [
        f"{count / 1000:.0f} s of sound" if kind == "audio_ms" else f"{count} {kind.replace('_', ' ')}"
        for kind, count in sorted(amounts.items())
        if kind != UNCOUNTED and count
    ]
    missing = [f"{amounts[UNCOUNTED]} not counted"] if amounts[UNCOUNTED] else []
    return "; ".join(filter(None, (", ".join(told), *missing)))


def _said(at: float | None, who: str, text: str) -> str:
    return f"{'' if at is None else clock(at):>6}  {who:6}  {shown(text)}"


def _waterfall(turn: Event) -> list[str]:
    """The stages of one answer as a bar, and in numbers."""
    fall = waterfall(turn)
    whole_ms = sum(stage.ms for stage in fall.stages)
    if whole_ms <= 0:
        return []
    bar = "".join(SIGNS[stage.name] * round(stage.ms / whole_ms * BAR_WIDTH) for stage in fall.stages)
    heard = "not heard" if fall.wait_ms is None else f"{fall.wait_ms} ms"
    told = ", ".join(f"{stage.name} {stage.ms}" for stage in fall.stages)
    lines = [f"{'':16}{bar}  {heard}: {told}"]
    if fall.ahead:
        ready = ", ".join(f"{stage.name} at {stage.end_ms}" for stage in fall.ahead)
        lines.append(f"{'':16}in the silence window: {ready}")
    return lines


def stats(calls: Sequence[PastCall]) -> list[str]:
    """How callers fared over many calls."""
    known = [call for call in calls if not (call.sealed or call.unreadable)]
    sealed, unreadable = (sum(getattr(call, what) for call in calls) for what in ("sealed", "unreadable"))
    lines = _figures(known) if known else []
    if sealed:
        lines.append(f"{_calls(sealed)} left out, being sealed: open with `calls unseal`.")
    if unreadable:
        lines.append(f"{_calls(unreadable)} left out, being unreadable: see `calls list`.")
    return lines or ["No call of that time was recorded; SAVE_RECORDINGS=yes keeps them."]


def _calls(count: int) -> str:
    return "1 call is" if count == 1 else f"{count} calls are"


def _figures(known: Sequence[PastCall]) -> list[str]:
    gaps = sorted(gap for call in known for gap in call.gaps_ms)
    lengths = sorted(call.seconds for call in known if call.seconds)
    outcomes = Counter(call.outcome or ("goes on" if call.goes_on else "cut short") for call in known)
    costs = [call.cost_usd for call in known if call.cost_usd is not None]
    scores = sorted(call.mos for call in known if call.mos is not None)
    lines = [
        f"calls      {len(known)}: " + ", ".join(f"{count} {name}" for name, count in outcomes.most_common())
    ]
    if lengths:
        lines.append(f"length     {_percentiles(lengths, clock)}; {clock(sum(lengths))} in all")
    lines.append(
        f"turns      {sum(call.turns for call in known)}, {sum(call.barge_ins for call in known)} interruptions, "
        f"{sum(call.failures for call in known)} failures of engines"
    )
    if gaps:
        lines.append(f"wait       {_percentiles(gaps, lambda ms: f'{ms:.0f} ms')}")
    if scores:
        lines.append(f"line       MOS {statistics.median(scores):.1f} p50, {scores[0]:.1f} worst")
    partial = any(call.cost_is_partial for call in known)
    if costs:
        all_of_them = _dollars(sum(costs), partial, digits=2)
        lines.append(f"cost       {all_of_them}, {_dollars(sum(costs) / len(costs), partial)} a call")
    elif partial:
        lines.append("cost       unknown")
    lines.append(
        "Counted is what was recorded, talked or not; callers who were refused at once are in /metrics."
    )
    return lines


def _percentiles(values: Sequence[float], shown: Any) -> str:
    return ", ".join(f"{shown(percentile(values, share))} p{share}" for share in (50, 95, 99))


def percentile(ordered: Sequence[float], share: int) -> float:
    """The least of the ordered values that `share` percent do not exceed (nearest rank)."""
    rank = -(-share * len(ordered) // 100)
    return ordered[max(rank, 1) - 1]


def clock(seconds: float) -> str:
    """`1:05` for 65 s."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

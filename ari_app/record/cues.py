"""Who said what, and when, as subtitles of the full call: WebVTT (W3C, section 4). Core."""

from __future__ import annotations

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.ports import BotSaid, BotSpeechStarted, CallerSaid, CallerSpeechStarted, Fact
from ari_app.texts import clean

HEADER = "WEBVTT\n\n"


class Cues:
    """Makes one cue of each thing that was said. Times are ms since the recording began."""

    def __init__(self, started_at: float) -> None:
        """`started_at` is the loop time (s) that facts count from."""
        self._started_at = started_at
        self._caller_ms: float | None = None
        self._bot_ms: float | None = None
        self._last_ms = 0.0

    def push(self, fact: Fact, now_ms: float, text: str) -> str:
        """The cue of a fact, `text` being what was said and `now_ms` when it was over; "" when it has none."""
        match fact:
            case CallerSpeechStarted(onset_at=onset_at):
                if self._caller_ms is None:
                    self._caller_ms = self._ms(onset_at)
            case BotSpeechStarted(at=at):
                self._bot_ms = self._ms(at)
            case CallerSaid(pcm=pcm, onset_at=onset_at):
                start_ms = self._caller_ms if onset_at is None else self._ms(onset_at)
                self._caller_ms = None
                spoken_ms = bytes_to_ms(len(pcm))
                if start_ms is None:
                    start_ms = now_ms - spoken_ms
                end_ms = min(start_ms + spoken_ms, now_ms) if spoken_ms else now_ms
                return self._cue("Caller", start_ms, end_ms, text)
            case BotSaid(onset_at=onset_at):
                start_ms = self._bot_ms if onset_at is None else self._ms(onset_at)
                self._bot_ms = None
                return self._cue("Bot", now_ms if start_ms is None else start_ms, now_ms, text)
        return ""

    def _ms(self, at: float) -> float:
        return max((at - self._started_at) * 1000, 0.0)

    def _cue(self, voice: str, start_ms: float, end_ms: float, text: str) -> str:
        # Cues stand in the order of their beginnings, and none is empty.
        start_ms = max(start_ms, self._last_ms, 0.0)
        end_ms = max(end_ms, start_ms + 1)
        self._last_ms = start_ms
        return f"{_time(start_ms)} --> {_time(end_ms)}\n<v {voice}>{_escaped(text)}\n\n"


def _time(ms: float) -> str:
    seconds, rest_ms = divmod(round(ms), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest_ms:03d}"


def _escaped(text: str) -> str:
    line = " ".join(clean(text).split())  # an empty line would end the cue
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

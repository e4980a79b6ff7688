"""What speech-to-text makes up is kept out, and what people say is let in."""

from __future__ import annotations

import pytest

from ari_app.dialog.gate import rejection


@pytest.mark.parametrize(
    ("text", "speech_ms", "span_ms", "reason"),
    [
        ("", 800, 1400, "no words"),
        (" ... ♪ ", 800, 1400, "no words"),
        ("the the the the the the the", 1500, 2000, "repetition"),
        ("I am sorry. " * 5, 4000, 5000, "repetition"),
        ("well I see it is I see it is I see it is I see it is", 4000, 5000, "repetition"),
        ("ha" * 40, 2000, 3000, "repetition"),
        ("Thanks for watching!", 400, 2000, "phantom phrase"),
        ("Subtítulos realizados por la comunidad de Amara.org", 1100, 2500, "phantom phrase"),
        ("Untertitel der Amara.org-Community", 700, 2000, "phantom phrase"),
        ("you", 240, 260, "phantom phrase"),
        ("Thank you.", 240, 1000, "phantom phrase"),
        ("I would like to book a table for two people", 600, 1200, "more words than the speech has room for"),
    ],
)
def test_rejected(text: str, speech_ms: float, span_ms: float, reason: str) -> None:
    assert rejection(text, speech_ms, span_ms) == reason


@pytest.mark.parametrize(
    ("text", "speech_ms", "span_ms"),
    [
        ("Yes.", 100, 120),
        ("Okay.", 200, 260),
        ("Thank you.", 240, 260),
        ("You?", 320, 340),
        ("I want to know it now", 780, 800),
        ("No, no, no, no!", 900, 1500),
        ("Thank you.", 500, 1100),
        ("Sí, claro.", 400, 1000),
        ("5 5 5 5 5 5 5 5", 3200, 4000),
        ("I would like to book a table for two.", 1900, 2600),
        ("Can I have that?", 600, 1200),  # four words a little clipped by the detector
        ("Hello? Hello? Hello?", 1200, 2200),
        ("How do I make subtitles by hand?", 1800, 2400),
    ],
)
def test_accepted(text: str, speech_ms: float, span_ms: float) -> None:
    assert rejection(text, speech_ms, span_ms) is None

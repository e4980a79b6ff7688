"""Keeps what speech-to-text made up out of the conversation. Core.

Whisper-like models turn noise into subtitle credits, into one word, or into a loop. The limits below follow
the published defaults of open-source Whisper and reports of its users; each leaves real short answers alone.
"""

from __future__ import annotations

import re

MAX_WORDS_PER_SECOND = 10.0
"""The fastest readers reach about 6 words per second; short words said quickly, "I want to know it now", 8."""
MIN_WORDS_FOR_SPEED = 4
"""Fewer words say nothing about speed: a voice detector clips soft ends of a word or two."""
LOOPED_WORD = 6
LOOPED_PHRASE = 4
LONGEST_LOOP_WORDS = 8

CREDIT_RATIO = 0.6
"""Subtitle credits are believed only in a turn that is mostly speech."""
SHORT_PHANTOM_RATIO = 0.4
"""People do say "thank you": it is a phantom only where there was hardly any speech between first and last sound."""
EMPTY_WORD_MS = 300
"""A word that says nothing by itself is believed only when it was longer than a cough."""

_CREDITS = re.compile(
    r"thanks? (you )?(so much )?for watching|(please )?(like and )?subscribe|amara\.? ?org|subtitles? by"
    r"|captions? by|subt[ií]tulos|suscr[ií]bete|gracias por ver|untertitel|sous[- ]titr|legendas|sottotitoli"
    r"|see you (in the )?next (video|time)",
    re.IGNORECASE,
)
_SHORT_PHANTOMS = frozenset(
    (
        "thank you",
        "thanks",
        "bye",
        "bye bye",
        "okay",
        "gracias",
        "adiós",
    )
)
_EMPTY_WORDS = frozenset(("you", "oh", "so", "the", "uh", "hmm", "y"))
_WORD = re.compile(r"[^\W_]+(?:['’\-.][^\W_]+)*")
_STUCK_CHARACTERS = re.compile(r"(\D{1,4}?)\1{11,}", re.IGNORECASE)


def rejection(text: str, speech_ms: float, span_ms: float) -> str | None:
    """Why a transcript can't be true; None when it can.

    Args:
        speech_ms: voiced time.
        span_ms: from the first voiced frame to the last.
    """
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return "no words"
    if _loops(words) or _STUCK_CHARACTERS.search(text):
        return "repetition"
    speech_ratio = speech_ms / span_ms if span_ms else 0.0
    if _CREDITS.search(text) and speech_ratio < CREDIT_RATIO:
        return "phantom phrase"
    phrase = " ".join(words)
    if phrase in _SHORT_PHANTOMS and speech_ratio < SHORT_PHANTOM_RATIO:
        return "phantom phrase"
    if phrase in _EMPTY_WORDS and speech_ms < EMPTY_WORD_MS:
        return "phantom phrase"
    if len(words) >= MIN_WORDS_FOR_SPEED and len(words) / (speech_ms / 1000) > MAX_WORDS_PER_SECOND:
        return "more words than the speech has room for"
    return None


def _loops(words: list[str]) -> bool:
    """True when some phrase is repeated without a break; digits are exempt, telephone numbers do repeat."""
    for length in range(1, LONGEST_LOOP_WORDS + 1):
        wanted = (LOOPED_WORD if length == 1 else LOOPED_PHRASE) * length
        run = length  # words up to here that repeat what stands `length` before
        for i in range(length, len(words)):
            run = run + 1 if words[i] == words[i - length] and not words[i].isdigit() else length
            if run >= wanted:
                return True
    return False

"""Streamed chat text to pieces worth speaking. Core.

The splitter works character by character, so where deltas break cannot matter. The first piece is short,
because the caller waits for it; later ones are sentences, because whole sentences sound better.
"""

from __future__ import annotations

import re
import unicodedata

FIRST_PIECE_CHARS = 10
"""Enough for a comma to end the first piece: "Oh," alone would be followed by a gap."""
FIRST_PIECE_WORDS = 10
"""The first piece ends after so many words even without punctuation."""
SENTENCE_CHARS = 20
"""Shorter sentences join the next one, as in openai-agents."""
CLAUSE_CHARS = 120
"""From here on a comma ends a piece."""
PIECE_CHARS = 240
"""From here on any space does: about 15 s of speech."""
TOKEN_CHARS = 400
"""And here anything: a bound for text without spaces."""

_STOPS = frozenset(".!?…")
_PAUSES = frozenset(",;:—–")
_WIDE_STOPS = frozenset("。！？")
"""Sentence ends of scripts that put no space behind them."""
_CLOSERS = "\"'”’»)]*_`"
_TITLES = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "sr", "sra", "srta", "dra", "ud", "uds", "vs", "e.g", "i.e"),
        *("p.ej", "approx", "dept", "ext", "tel", "fig", "av", "avda", "núm", "gral"),
    )
)
"""A full stop behind these never ends a sentence."""
_MAYBE_LAST = frozenset(("a.m", "p.m", "am", "pm", "etc", "inc", "ltd", "jr", "co", "u.s", "no", "nos"))
"""A full stop behind these ends a sentence when the next word looks like a beginning."""

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_URL = re.compile(r"https?://(?:www\.)?([^/\s?#]+)\S*?(?=[.,;:!?)]*(?:\s|$))", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•>+]\s+|#+\s*)+")
_MARKS = re.compile(r"[*`#~|]+|(?<!\w)_+|_+(?!\w)")
_SPOKEN_SYMBOLS = frozenset("°")


class SentenceSplitter:
    """Cuts one answer into pieces."""

    def __init__(self) -> None:
        self._buffer = ""
        self._doubtful = False
        """The buffer ends in a full stop and a space that may or may not end the sentence."""
        self._first = True

    def push(self, delta: str) -> list[str]:
        """Take more text; return the pieces that are complete now."""
        pieces = []
        for char in delta:
            pieces += self._push_char(char)
        return pieces

    def finish(self) -> list[str]:
        """The answer is complete: return what is left."""
        return self._cut()

    def _push_char(self, char: str) -> list[str]:
        pieces: list[str] = []
        if self._doubtful and not char.isspace():
            self._doubtful = False
            if char.isupper() or char in '¿¡"“«':
                pieces = self._cut()
        ends = char.isspace() and self._ends_piece(char)
        self._buffer += char
        if ends or char in _WIDE_STOPS or len(self._buffer) >= TOKEN_CHARS:
            pieces += self._cut()
        return pieces

    def _ends_piece(self, space: str) -> bool:
        """Whether the piece ends before `space`, which is not in the buffer yet."""
        text = self._buffer.strip()
        bare = text.rstrip(_CLOSERS)
        if not bare:
            return False
        if space == "\n":
            return True
        length = len(text)
        if bare[-1] in _STOPS and (self._first or length >= SENTENCE_CHARS) and self._ends_sentence(bare):
            return True
        if bare[-1] in _PAUSES and length >= (FIRST_PIECE_CHARS if self._first else CLAUSE_CHARS):
            return True
        if self._first and len(text.split()) >= FIRST_PIECE_WORDS:
            return True
        return length >= PIECE_CHARS

    def _ends_sentence(self, text: str) -> bool:
        """Whether the last character, one of `_STOPS`, ends a sentence; sets `_doubtful` where it may."""
        if text[-1] != "." or text.endswith(".."):
            return True
        token = text[:-1].split()[-1].lstrip("(\"'“«¿¡*_").lower() if text[:-1].split() else ""
        if token in _TITLES or (len(token) == 1 and token.isalpha() and text[-2].isupper() and token != "i"):
            return False
        if token.isdigit() and text[:-1].strip(" -*•#>") == token:
            return False  # the number of a list entry
        self._doubtful = token in _MAYBE_LAST
        return not self._doubtful

    def _cut(self) -> list[str]:
        piece = speakable(self._buffer)
        self._buffer = ""
        self._doubtful = False
        if not piece:
            return []
        self._first = False
        return [piece]


def speakable(text: str) -> str:
    """`text` without what is meant for the eye: Markdown, links, symbols; empty when no word is left."""
    text = _LINK.sub(r"\1", text)
    text = _URL.sub(r"\1", text)
    text = _BULLET.sub("", text)
    text = _MARKS.sub("", text)
    text = "".join(ch for ch in text if ch.isspace() or _is_spoken(ch))
    text = " ".join(text.split())
    return text if any(ch.isalnum() for ch in text) else ""


def _is_spoken(char: str) -> bool:
    category = unicodedata.category(char)
    # So, Sk: pictures and their skin tones; C*: control, format (variation selectors are Mn), private use.
    return char in _SPOKEN_SYMBOLS or (
        category not in ("So", "Sk") and category[0] != "C" and char != "\ufe0f"
    )


def pieces(text: str) -> list[str]:
    """All of a text in speakable pieces."""
    splitter = SentenceSplitter()
    return splitter.push(text) + splitter.finish()

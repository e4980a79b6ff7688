"""What a caller means who speaks while the bot does: to interrupt, or only that they listen. Core.

The bot falls silent at once in either case, and waits. Speech that goes on is an interruption. Short speech is judged
by its words; when they mean nothing the bot goes on with the very next sample.
"""

from __future__ import annotations

import re

SURE_MS = 1000
"""Speech over the bot that lasts so long is an interruption, whatever its words: people who only listen are briefer."""

_LISTENING = frozenset(
    (
        *(
            "mm",
            "mhm",
            "mm-hm",
            "mm-hmm",
            "mmhmm",
            "hm",
            "hmm",
            "uh-huh",
            "uhhuh",
            "huh",
            "aha",
            "ah",
            "oh",
            "um",
            "uh",
        ),
        *(
            "yeah",
            "yep",
            "yes",
            "ok",
            "okay",
            "right",
            "sure",
            "alright",
            "exactly",
            "cool",
            "good",
            "great",
            "nice",
        ),
        *("sí", "si", "ya", "vale", "claro", "ajá", "bueno", "bien", "exacto"),
        *("ja", "genau", "gut", "stimmt", "klar", "achso", "oui", "ouais", "voilà", "oké", "sì", "certo"),
    )
)
_PHRASES = re.compile(
    r"\b(?:i see|got it|all right|of course|very good|uh huh|mm hmm|mm hm|ach so|de acuerdo|muy bien|alles klar)\b"
)
_HUM = re.compile(r"[mh][mhn]*o?|n|[aou]+h+")
"""What engines write for a hum: "mmm", "hm", "mmo", "M H N"."""
MAX_WORDS = 3
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


def interrupts(words: str, *, said: str, min_words: int) -> bool:
    """Whether `words`, spoken over the bot and then over, are to interrupt it.

    Args:
        said: what the bot is saying. After a question "yes" is an answer, however early it comes.
        min_words: fewer are none.
    """
    spoken = [word.lower() for word in _WORD.findall(words)]
    if len(spoken) < max(1, min_words):
        return False
    if "?" in said or len(spoken) > MAX_WORDS:
        return True
    rest = _PHRASES.sub("", " ".join(spoken)).split()
    return not all(word in _LISTENING or _HUM.fullmatch(word) for word in rest)

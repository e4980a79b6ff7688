"""What the application says itself, in the caller's language, and how that sounds. Core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ari_app.audio.tones import two_tones
from ari_app.phrases import PHRASES


@dataclass(frozen=True, slots=True)
class Sentence:
    """Something that is said as it stands."""

    text: str = ""
    pcm: bytes = field(default=b"", repr=False)
    """Its speech at 8 kHz; without any it is not said."""


class Phrasebook:
    """The sentences of one process, and their speech as far as it was made.

    Args:
        texts: by language and purpose; the first language serves whoever speaks none of the others. An empty text is
            never said.
        also: what else is said often.
    """

    def __init__(self, texts: Mapping[str, Mapping[str, str]], *, also: Iterable[str] = ()) -> None:
        self._texts = texts
        self._default = texts[next(iter(texts))] if texts else {}
        self._also = tuple(also)
        self._by_heart: dict[str, bytes] = {}

    @property
    def by_heart(self) -> Mapping[str, bytes]:
        """The speech that was made, by text: PCM16 at 8 kHz."""
        return self._by_heart

    def put(self, text: str, pcm: bytes) -> None:
        """This is how it sounds."""
        self._by_heart[text] = pcm

    def missing(self, *languages: str) -> list[str]:
        """The texts whose speech is still to be made: of these languages, of all without any."""
        texts = list(self._also)
        for language in languages or self._texts:
            texts += self._texts[language].values()
        return [text for text in dict.fromkeys(texts) if text and text not in self._by_heart]

    def get(self, purpose: str, language: str | None = None) -> Sentence:
        """The sentence for a caller of that language; where its speech is not made, that of the first language."""
        text = self._texts.get(language or "", self._default).get(purpose, "")
        return self.sentence(text if text in self._by_heart else self._default.get(purpose, ""))

    def sentence(self, text: str) -> Sentence:
        """A text with its speech; a tone before nothing at all is heard."""
        return Sentence(text, self._by_heart.get(text) or two_tones()) if text else Sentence()


NO_PHRASES = Phrasebook({})
"""For who has no voice of their own."""


def texts_for(languages: Iterable[str], own: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The texts of a phrasebook: those of PHRASES, with what the operator says otherwise, which goes for all callers.

    Args:
        languages: the default first; one without phrases has the English ones.
        own: by purpose; what is PHRASES' own English text is no wish.
    """
    wishes = {purpose: text for purpose, text in own.items() if text != PHRASES["en"].get(purpose)}
    return {code: {**PHRASES.get(code, PHRASES["en"]), **wishes} for code in languages}

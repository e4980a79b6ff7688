"""The application's own sentences by language."""

from __future__ import annotations

import pytest

from ari_app.audio.tones import two_tones
from ari_app.dialog.phrasebook import Phrasebook, Sentence, texts_for
from ari_app.phrases import PHRASES

PURPOSES = {"apology", "regret", "hold", "idle", "parting", "warning", "limit", "goodbye"}


@pytest.mark.parametrize("language", PHRASES)
def test_every_language_can_say_everything(language: str) -> None:
    assert set(PHRASES[language]) == PURPOSES
    assert all(text.strip() and text.rstrip()[-1] in ".?" for text in PHRASES[language].values())
    if language != "en":
        assert not set(PHRASES[language].values()) & set(PHRASES["en"].values())


def test_what_the_operator_says_otherwise_goes_for_all_and_the_rest_is_translated() -> None:
    own = {"apology": "Oops.", "hold": PHRASES["en"]["hold"], "goodbye": ""}
    texts = texts_for(("es", "xx"), own)
    assert texts["es"]["apology"] == texts["xx"]["apology"] == "Oops."
    assert texts["es"]["hold"] == PHRASES["es"]["hold"] and texts["xx"]["hold"] == PHRASES["en"]["hold"]
    assert texts["es"]["goodbye"] == ""


def test_the_callers_language_comes_first_then_the_usual_one_then_a_tone() -> None:
    phrases = Phrasebook({"en": {"hold": "Wait."}, "es": {"hold": "Espere."}})
    assert phrases.get("hold", "es") == Sentence("Wait.", two_tones())
    phrases.put("Wait.", b"en")
    assert phrases.get("hold", "es").pcm == b"en" and phrases.get("hold").pcm == b"en"
    phrases.put("Espere.", b"es")
    assert phrases.get("hold", "es") == Sentence("Espere.", b"es")
    assert phrases.get("hold", "fr").pcm == phrases.get("hold", None).pcm == b"en"


def test_what_is_empty_is_never_said() -> None:
    phrases = Phrasebook({"en": {"hold": ""}})
    assert phrases.get("hold") == phrases.get("apology") == phrases.sentence("") == Sentence()
    assert phrases.missing() == [] and Phrasebook({}).get("hold") == Sentence()


def test_what_is_missing_is_known_by_language_once() -> None:
    phrases = Phrasebook({"en": {"a": "A.", "b": "B."}, "es": {"a": "Á.", "b": "B."}}, also=("Hi.", ""))
    assert phrases.missing("en") == ["Hi.", "A.", "B."]
    phrases.put("B.", b"b")
    assert phrases.missing() == ["Hi.", "A.", "Á."]
    assert phrases.by_heart == {"B.": b"b"}

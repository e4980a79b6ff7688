from __future__ import annotations

import pytest

from ari_app.offline.language import language_of, words


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What time do you open?", "en"),
        ("A basic service costs sixty euros.", "en"),
        ("¿A qué hora abren?", "es"),
        ("a que hora abren el sabado", "es"),
        ("Una revisión básica cuesta sesenta euros.", "es"),
        ("mañana", "es"),
        ("", "en"),
    ],
)
def test_language(text: str, language: str) -> None:
    assert language_of(text) == language


def test_in_doubt_the_callers_earlier_language_counts() -> None:
    assert language_of("No.", in_doubt="es") == "es"


def test_words_have_no_accents_and_no_apostrophes() -> None:
    assert words("What's  the ¿Dónde? Señor, O’Neill 24") == [
        "whats",
        "the",
        "donde",
        "senor",
        "oneill",
        "24",
    ]

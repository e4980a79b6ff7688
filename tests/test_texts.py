"""Texts of strangers: what is left of characters that would do something."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ari_app.texts import clean, escaped, one_line, shown

ATTACKS = "a\x1b[2Jb\x9b31mc\r\nd\u2028e\u202ef\ud800g\x00h\x7fi"


def is_safe(text: str) -> bool:
    steers = {"Cc", "Cs", "Zl", "Zp"}
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return not any(unicodedata.category(c) in steers or unicodedata.bidirectional(c) in turns for c in text)


def test_what_steers_is_taken_out_and_the_words_are_left() -> None:
    assert clean(ATTACKS) == "a [2Jb 31mc  d e f g h i"
    assert one_line(ATTACKS, 100) == "a [2Jb 31mc d e f g h i"
    assert shown(ATTACKS) == "a?[2Jb?31mc??d?e?f?g?h?i"
    assert escaped("a\x1b\nb\u2028") == "a\\u001b\\u000ab\\u2028"
    assert one_line("word " * 1000, 22) == "word word word word wo"


def test_letters_of_all_languages_stay() -> None:
    """Also those that join letters in Persian and Hindi, and pictures of several parts."""
    for text in ("¿Qué tal?", "می‌خواهم", "क्‍ष", "שלום", "👩‍👩‍👧", "日本語"):
        assert clean(text) == one_line(text, 100) == shown(text) == escaped(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_safe(text: str) -> None:
    for made in (clean(text), one_line(text, 50), shown(text), escaped(text)):
        assert is_safe(made)
        made.encode()
    assert len(one_line(text, 50)) <= 50

"""Streamed text becomes pieces that sound well, wherever the deltas break."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.dialog.sentences import TOKEN_CHARS, SentenceSplitter, speakable


def split(text: str) -> list[str]:
    splitter = SentenceSplitter()
    return splitter.push(text) + splitter.finish()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("Yes.", ["Yes."]),
        ("Yes. I can do that for you.", ["Yes.", "I can do that for you."]),
        ("Of course, sir, I can. Bye.", ["Of course,", "sir, I can. Bye."]),
        ("Oh, I see what you mean.", ["Oh, I see what you mean."]),
        ("We open at 3:30 and close at 9.45 sharp.", ["We open at 3:30 and close at 9.45 sharp."]),
        ("It costs 1,000.50 euros.", ["It costs 1,000.50 euros."]),
        ("Ask Mr. Smith or Dr. J. Jones, e.g. today.", ["Ask Mr. Smith or Dr. J. Jones,", "e.g. today."]),
        ("Come at 3 p.m. on Friday.", ["Come at 3 p.m. on Friday."]),
        ("Come at 3 p.m. We wait there.", ["Come at 3 p.m.", "We wait there."]),
        ("No. That is not possible.", ["No.", "That is not possible."]),
        ("Take room no. 5 please.", ["Take room no. 5 please."]),
        ("¡Hola! ¿En qué puedo ayudarle hoy? Dígame.", ["¡Hola!", "¿En qué puedo ayudarle hoy?", "Dígame."]),
        ("Hmm... let me see what there is.", ["Hmm...", "let me see what there is."]),
        (
            "Here:\n1. First **thing**\n2. Second `thing`\n- third",
            ["Here:", "1. First thing", "2. Second thing", "third"],
        ),
        ('She said "Come in." Then she left us.', ['She said "Come in."', "Then she left us."]),
        ("**Sure!** I will _gladly_ help.", ["Sure!", "I will gladly help."]),
        ("👍 🎉", []),
        ("Great 👍🏽 stuff.", ["Great stuff."]),
        (
            "I can certainly help you with that booking for tomorrow evening at eight",
            ["I can certainly help you with that booking for tomorrow", "evening at eight"],
        ),
        ("你好。今天天气很好。", ["你好。", "今天天气很好。"]),
    ],
)
def test_pieces(text: str, pieces: list[str]) -> None:
    assert split(text) == pieces


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("## Opening hours", "Opening hours"),
        ("See https://www.example.com/a/b?c=1#d.", "See example.com."),
        ("Look at [our page](https://example.com/x) now", "Look at our page now"),
        ("* one", "one"),
        ("snake_case and 2*3", "snake_case and 23"),
        ("It is 20° outside", "It is 20° outside"),
        ("- — -", ""),
        ("a\u200bb\x00c", "abc"),
    ],
)
def test_marks_for_the_eye_are_not_spoken(text: str, spoken: str) -> None:
    assert speakable(text) == spoken


def test_the_first_piece_does_not_wait_for_what_follows() -> None:
    splitter = SentenceSplitter()
    assert splitter.push("Certainly, ") == ["Certainly,"]
    assert splitter.push("that is possible on Monday.") == []
    assert splitter.push(" ") == ["that is possible on Monday."]


BITS = [
    *"abcXYZ015",
    *" ,.;:!?¿¡\n",
    *"-*#`_()[]\"'",
    "é",
    "。",
    "👍",
    " Mr",
    " e.g",
    " no",
    " p.m",
    "https://a.bc/d",
]
WORDS = [
    "Hello",
    "Mr.",
    "at 3:30",
    "p.m.",
    "etc.",
    "no.",
    "1.",
    "**bold**",
    "https://a.bc/d",
    "\n-",
    "¿Qué?",
    "I.",
]
TEXT = st.lists(st.sampled_from(BITS), max_size=150).map("".join) | st.lists(
    st.sampled_from(WORDS), max_size=40
).map(" ".join)


@given(TEXT, st.data())
def test_where_deltas_break_does_not_matter(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    splitter = SentenceSplitter()
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += splitter.push(text[start:end])
    assert pieces + splitter.finish() == split(text)


@given(TEXT)
def test_pieces_are_bounded_speakable_and_lose_no_word(text: str) -> None:
    pieces = split(text)
    assert all(0 < len(piece) <= TOKEN_CHARS for piece in pieces)
    assert all(any(ch.isalnum() for ch in piece) for piece in pieces)
    if "[" not in text and "https" not in text:  # links are shortened on purpose
        letters = [ch for ch in text if ch.isalnum()]
        assert [ch for piece in pieces for ch in piece if ch.isalnum()] == letters


def test_a_long_text_without_spaces_is_cut() -> None:
    pieces = split("x" * 1000)
    assert [len(piece) for piece in pieces] == [400, 400, 200]


def test_a_long_sentence_is_cut_at_a_comma_or_a_space() -> None:
    clause = "and then we go on and on and on without any end in sight"
    pieces = split("Well. " + f"{clause}, " * 6)
    assert pieces[0] == "Well."
    assert all(piece.endswith("sight,") and len(piece) < 240 for piece in pieces[1:])
    assert max(len(piece) for piece in split("Well. " + "word " * 200)) <= 245

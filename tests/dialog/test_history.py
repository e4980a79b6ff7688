"""The chat model is told what was said and heard, within bounds, in alternating roles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.dialog.history import CALL_BEGINS, History, heard_part


def shown(history: History) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in history.messages()]


def test_what_was_said_in_order() -> None:
    history = History("Be brief.")
    history.add_assistant("Hello!")
    history.add_user("I want")
    assert history.unanswered
    history.add_user("a table.")
    history.add_assistant("For how many", interrupted=True)
    assert not history.unanswered
    assert shown(history) == [
        ("system", "Be brief."),
        ("user", CALL_BEGINS),
        ("assistant", "Hello!"),
        ("user", "I want a table."),
        ("assistant", "For how many —"),
    ]


def test_an_unheard_answer_leaves_no_trace() -> None:
    history = History("")
    history.add_user("Hello?")
    history.add_assistant("", interrupted=True)
    assert shown(history) == [("user", "Hello?")]


def test_the_oldest_exchange_goes_first_and_no_answer_stays_without_its_question() -> None:
    history = History("S", max_messages=3)
    for number in range(1, 4):
        history.add_user(f"q{number}")
        history.add_assistant(f"a{number}")
    assert shown(history) == [("system", "S"), ("user", "q3"), ("assistant", "a3")]


@given(
    st.lists(st.tuples(st.booleans(), st.text(min_size=1, max_size=60)), max_size=40),
    st.integers(1, 8),
    st.integers(10, 200),
)
def test_bounds_and_alternation(said: list[tuple[bool, str]], max_messages: int, max_chars: int) -> None:
    history = History("S", max_messages=max_messages, max_chars=max_chars)
    for by_caller, text in said:
        if by_caller:
            history.add_user(text)
        else:
            history.add_assistant(text)
    system, *rest = history.messages()
    assert system.content == "S"
    if rest and rest[0].content == CALL_BEGINS:
        _, *rest = rest
        assert rest[0].role == "assistant"
    elif rest:
        assert rest[0].role == "user"
    assert len(rest) <= max_messages
    assert sum(len(m.content) for m in rest) <= max_chars
    assert all(a.role != b.role for a, b in zip(rest, rest[1:], strict=False))
    if said:
        assert rest and rest[-1].content.endswith(said[-1][1][-max_chars:])


@pytest.mark.parametrize(
    ("played_ms", "heard"),
    [
        (0, ""),
        (499, ""),  # "Hello" is 5 of 20 characters, 500 of 2000 ms
        (500, "Hello"),
        (550, "Hello"),
        (1099, "Hello"),
        (1100, "Hello there"),
        (1999, "Hello there my"),
        (2000, "Hello there my frien"),
        (2400, "Hello there my frien"),
    ],
)
def test_heard_words_are_whole_words(played_ms: float, heard: str) -> None:
    assert heard_part("Hello there my frien", played_ms, 2000) == heard


@given(st.text(max_size=80), st.floats(0, 5000), st.floats(0, 5000))
def test_heard_part_is_a_beginning(text: str, played_ms: float, total_ms: float) -> None:
    assert text.startswith(heard_part(text, played_ms, total_ms))

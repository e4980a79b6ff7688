"""Object ids: their form, and that none begins with another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.ari.ids import Kind, ObjectId, object_id, parse_object_id, server_tag

HEX = "0123456789abcdef"
tags = st.text(HEX, min_size=8, max_size=8)
calls = st.text(HEX, min_size=12, max_size=12)
ids = st.builds(object_id, tags, calls, st.sampled_from(Kind))


@given(ids, ids)
def test_none_begins_with_another(one: str, other: str) -> None:
    assert one == other or not one.lower().startswith(other.lower())


@given(tags, calls, st.sampled_from(Kind))
def test_round_trip(tag: str, call_id: str, kind: Kind) -> None:
    assert parse_object_id(object_id(tag, call_id, kind)) == ObjectId(tag, call_id, kind)


@given(st.text())
def test_others_are_not_ours(text: str) -> None:
    assert parse_object_id(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "1700000000.12",
        "ari_app-5f0c21aa-9d3b61c07e42-x",
        "ari_app-5f0c21aa-9d3b61c07e42-m;2",
        "ari_app-5f0c21aa-9d3b61c07e42-m\n",
        "ari_app-5F0C21AA-9d3b61c07e42-m",
        " ari_app-5f0c21aa-9d3b61c07e42-m",
    ],
)
def test_near_misses(text: str) -> None:
    assert parse_object_id(text) is None


@pytest.mark.parametrize(("tag", "call_id"), [("short", "0" * 12), ("0" * 8, "0" * 11), ("0" * 8, "G" * 12)])
def test_parts_of_another_form_are_refused(tag: str, call_id: str) -> None:
    with pytest.raises(ValueError, match="not the parts of an object id"):
        object_id(tag, call_id, Kind.BRIDGE)


def test_server_tag_is_of_the_application_and_the_asterisk() -> None:
    tag = server_tag("bot", "http://127.0.0.1:8088")
    assert tag == server_tag("bot", "http://127.0.0.1:8088/")
    assert tag != server_tag("bot2", "http://127.0.0.1:8088")
    assert tag != server_tag("bot", "http://127.0.0.1:8089")
    assert parse_object_id(object_id(tag, "0" * 12, Kind.MEDIA)) is not None

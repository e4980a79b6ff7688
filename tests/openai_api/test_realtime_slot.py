"""One response at a time, whoever asks for it and in whatever order the news comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ari_app.openai_api.realtime_protocol import Event
from ari_app.openai_api.realtime_slot import ACTIVE_RESPONSE, ResponseSlot


def test_a_second_wish_waits_and_a_third_takes_its_place() -> None:
    sent: list[Event] = []
    slot = ResponseSlot(sent.append)
    slot.request()
    slot.request({"instructions": "second"})
    slot.created("r1")
    slot.request({"instructions": "third"})
    assert len(sent) == 1 and "response" not in sent[0]
    slot.done("r1", "completed")
    assert [e.get("response") for e in sent] == [None, {"instructions": "third"}]
    slot.created("r2")
    slot.request()
    slot.withdraw()
    slot.done("r2", "completed")
    assert len(sent) == 2 and not slot.busy


def test_a_refused_request_frees_the_slot_and_the_next_is_sent() -> None:
    sent: list[Event] = []
    slot = ResponseSlot(sent.append)
    slot.request()
    assert not slot.refused("other", "invalid_value")
    slot.request({"instructions": "next"})
    assert slot.refused(sent[0]["event_id"], "invalid_value")
    assert len(sent) == 2 and slot.busy
    assert slot.refused(sent[0]["event_id"], "invalid_value"), "old news"
    assert slot.busy


def test_the_end_of_another_response_does_not_free_the_slot() -> None:
    sent: list[Event] = []
    slot = ResponseSlot(sent.append)
    slot.created("r2")
    slot.done("r1", "cancelled")
    assert slot.busy


@given(st.lists(st.sampled_from(["request", "vad", "done", "cancelled"]), max_size=40))
def test_a_strict_server_never_sees_two_at_once_but_in_a_race(steps: list[str]) -> None:
    """The server below refuses what comes while a response is active; every wish is answered in the end."""
    sent: list[Event] = []
    slot = ResponseSlot(sent.append)
    active: str | None = None
    count = taken = 0

    def serve() -> None:
        nonlocal active, count, taken
        while taken < len(sent):
            event = sent[taken]
            taken += 1
            if active:
                slot.refused(event["event_id"], ACTIVE_RESPONSE)
            else:
                count += 1
                active = f"r{count}"
                slot.created(active)

    for step in steps:
        if step == "request":
            slot.request()
        elif step == "vad" and active is None:
            count += 1
            active = f"r{count}"
            serve()  # a request that was on its way meets the server's own response
            slot.created(active)
        elif active and step in ("done", "cancelled"):
            ended, active = active, None
            slot.done(ended, "completed" if step == "done" else "cancelled")
        serve()
        assert slot.busy == (active is not None)

"""The Realtime conversation: turns, interruptions, the response slot, lost sessions, and what a silent server costs."""

from __future__ import annotations

import base64
from dataclasses import replace
from itertools import groupby

import pytest

from ari_app.audio.format import bytes_to_ms
from ari_app.dialog.history import CALL_BEGINS
from ari_app.dialog.ports import (
    BargeIn,
    BotSaid,
    BotSpeechStarted,
    CallerNotUnderstood,
    CallerSaid,
    CallerSpeechStarted,
    EngineFailed,
    EngineUsed,
    GaveUp,
    TurnTimed,
)
from tests.fakes.realtime_talk import MANNERS, SETTINGS, Talk

ACTIVE = "conversation_already_has_active_response"


def test_a_greeting_and_two_turns() -> None:
    talk = Talk(manners=replace(MANNERS, greeting="Hello there."))
    session = talk.begin()
    (create,) = session.sent
    assert create["type"] == "response.create" and create["event_id"]
    assert create["response"] == {"instructions": "Say exactly: Hello there."}
    talk.answers("r0", "Hello there.")
    talk.silence(1400)
    for number in (1, 2):
        talk.server_hears(f"u{number}", transcript=f"Question {number}.")
        talk.answers(f"r{number}", f"Answer {number}.")
        talk.silence(1400)
    words = [(type(f), f.turn, f.text) for f in talk.facts if isinstance(f, CallerSaid | BotSaid)]
    assert words == [
        (BotSaid, 0, "Hello there."),
        (CallerSaid, 1, "Question 1."),
        (BotSaid, 1, "Answer 1."),
        (CallerSaid, 2, "Question 2."),
        (BotSaid, 2, "Answer 2."),
    ]
    assert all(f.heard == f.text and not f.interrupted for f in talk.all(BotSaid))
    assert all(bytes_to_ms(len(f.pcm)) == pytest.approx(1000, abs=1) for f in talk.all(BotSaid))
    assert [f.turn for f in talk.all(BotSpeechStarted)] == [0, 1, 2]
    assert not talk.all(BargeIn) and not talk.all(EngineFailed)
    assert session.kinds() == ["response.create"], "the server's detection makes the other responses"


def test_the_audio_and_the_waterfall_of_a_turn() -> None:
    talk = Talk()
    talk.begin()
    talk.silence(1000)
    talk.server_hears("u1", ms=800, window_ms=500, transcript="Hello.")
    spoke_until = talk.now - 0.5
    talk.answers("r1", "Hi.")
    talk.silence(200)
    (said,) = talk.all(CallerSaid)
    assert bytes_to_ms(len(said.pcm)) == pytest.approx(300 + 800 + 500, abs=25)
    assert said.language == "en"
    (started,) = talk.all(CallerSpeechStarted)
    assert started.onset_at == pytest.approx(spoke_until - 0.8, abs=0.03)
    (timed,) = talk.all(TurnTimed)
    assert (said.onset_at, said.ended_at) == (started.onset_at, timed.speech_end_at), "not when it was known"
    assert timed.speech_end_at == pytest.approx(spoke_until, abs=0.03)
    assert timed.endpoint_at == pytest.approx(spoke_until + 0.5, abs=0.03)
    assert timed.first_frame_at is not None and timed.first_frame_at - timed.endpoint_at < 0.05


def test_words_are_reported_in_spoken_order_however_late_they_come() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1")
    talk.answers("r1", "One.", ms=400)
    talk.silence(800)
    talk.server_hears("u2")
    assert not talk.all(BotSaid)
    talk.transcribed("u2", "Second.")
    assert not talk.all(CallerSaid)
    talk.transcribed("u1", "First.")
    assert [f.text for f in talk.facts if isinstance(f, CallerSaid | BotSaid)] == [
        "First.",
        "One.",
        "Second.",
    ]


def test_a_transcript_that_never_comes_is_given_up_and_holds_nothing_back() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1")
    talk.answers("r1", "One.", ms=400)
    talk.silence(9000)
    assert [(f.turn, f.reason) for f in talk.all(CallerNotUnderstood)] == [(1, "no transcript came")]
    assert [f.text for f in talk.all(BotSaid)] == ["One."]
    failed = "conversation.item.input_audio_transcription.failed"
    talk.server_hears("u2")
    talk.event(failed, item_id="u2", error={"code": "audio_unintelligible", "message": "What?"})
    assert "What?" in talk.all(CallerNotUnderstood)[1].reason


# --- interruptions


def test_an_interruption_truncates_at_what_left_for_the_caller() -> None:
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Count.")
    talk.answers("r1", "One two three four five six seven eight.", ms=4000)
    talk.silence(1200)
    before = len(talk.playout.sent)
    talk.server_hears("u2", transcript="Stop.")
    (truncate,) = session.sent
    heard_ms = talk.heard_ms("r1-item")
    assert truncate == {
        "type": "conversation.item.truncate",
        "item_id": "r1-item",
        "content_index": 0,
        "audio_end_ms": heard_ms,
    }
    after = talk.playout.sent[before:]
    assert not any(after[10:]), "the frame after the server's word is silent"
    (said,) = talk.all(BotSaid)
    assert said.interrupted and said.heard == "One two three"  # of 40 characters 14 in 1.4 of 4 s
    assert bytes_to_ms(len(said.pcm)) == pytest.approx(heard_ms, abs=1)
    assert len(talk.all(BargeIn)) == 1


def test_late_pieces_of_an_interrupted_response_are_not_played() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Count.")
    talk.answers("r1", "One two three four.", ms=2000, done=False)
    talk.silence(500)
    talk.event("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=talk.clock_ms)
    talk.says("r1", "five six.", ms=1000)
    talk.finishes("r1", "cancelled", status_details={"type": "cancelled", "reason": "turn_detected"})
    talk.says("r1", "seven.", ms=1000)
    heard = talk.heard_ms("r1-item")
    talk.silence(2000)
    assert talk.heard_ms("r1-item") == heard and not talk.playout.speaking
    assert "five" not in talk.all(BotSaid)[0].text


def test_what_was_heard_to_its_end_is_not_truncated() -> None:
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Hello.")
    talk.answers("r1", "Hi.", ms=500)
    talk.silence(700)
    talk.server_hears("u2", transcript="Bye.")
    assert session.sent == []
    assert not talk.all(BotSaid)[0].interrupted and not talk.all(BargeIn)


def test_an_item_that_was_never_heard_is_deleted() -> None:
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Hello.")
    talk.answers("r1", "Hi.", ms=500)
    talk.event("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=talk.clock_ms)
    assert session.sent == [{"type": "conversation.item.delete", "item_id": "r1-item"}]
    talk.silence(500)
    assert not any(talk.playout.sent) and not talk.all(BotSaid)


def test_with_local_barge_in_the_server_does_not_interrupt_and_answers_only_what_we_heard_too() -> None:
    talk = Talk(replace(SETTINGS, barge_in="local"))
    session = talk.begin()
    talk.silence(3000)  # the noise floor settles
    talk.server_hears("u1", transcript="Count.", window_ms=1200)
    assert session.kinds() == ["response.create"]
    talk.answers("r1", "One two three four five six seven eight.", ms=4000)
    talk.silence(400)
    # An echo of the bot that only the server takes for speech.
    talk.event("input_audio_buffer.speech_started", item_id="echo", audio_start_ms=talk.clock_ms)
    talk.silence(600)
    talk.end_turn("echo")
    assert session.kinds() == ["response.create", "conversation.item.delete"]
    assert session.sent[-1]["item_id"] == "echo" and not talk.all(BargeIn)
    # The caller, sustained.
    talk.speak(400)
    assert session.kinds()[2:] == ["conversation.item.truncate"]
    assert session.sent[-1]["audio_end_ms"] == talk.heard_ms("r1-item")
    assert len(talk.all(BargeIn)) == 1


def test_with_local_barge_in_a_response_in_the_making_is_cancelled() -> None:
    talk = Talk(replace(SETTINGS, barge_in="local"))
    session = talk.begin()
    talk.server_hears("u1", transcript="Count.", window_ms=1200)
    talk.answers("r1", "One two", ms=400, done=False)
    talk.speak(400)
    assert session.kinds() == ["response.create", "response.cancel", "conversation.item.truncate"]
    assert session.sent[1]["response_id"] == "r1"


# --- the slot, function calls, usage


def test_a_request_that_lost_a_race_is_dropped_when_the_other_response_is_completed() -> None:
    talk = Talk(manners=replace(MANNERS, greeting="Hello."))
    session = talk.begin()
    event_id = session.sent[0]["event_id"]
    talk.event("error", error={"code": ACTIVE, "message": "busy", "event_id": event_id})
    talk.answers("r1", "Hi, I was first.")
    assert session.kinds() == ["response.create"]


@pytest.mark.parametrize("created_first", [True, False])
def test_a_request_that_lost_a_race_is_sent_again_when_the_other_came_to_nothing(created_first: bool) -> None:
    talk = Talk(manners=replace(MANNERS, greeting="Hello."))
    session = talk.begin()
    event_id = session.sent[0]["event_id"]
    if created_first:
        talk.event("response.created", response={"id": "other"})
    talk.event("error", error={"code": ACTIVE, "message": "busy", "event_id": event_id})
    if not created_first:
        talk.event("response.created", response={"id": "other"})
    assert session.kinds() == ["response.create"]
    talk.finishes("other", "cancelled")
    assert session.kinds() == ["response.create"] * 2
    assert session.sent[1]["event_id"] != event_id


def test_function_calls_are_answered_once_for_all_after_their_response() -> None:
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Transfer me.")
    for round_number in range(3):
        response = f"r{round_number}"
        talk.event("response.created", response={"id": response})
        for call in ("a", "b"):
            item = {"type": "function_call", "call_id": call, "name": "transfer", "status": "completed"}
            talk.event("response.output_item.done", response_id=response, item=item)
        assert len(session.sent) == 3 * round_number, "nothing before the response is done"
        talk.finishes(response)
        outputs = session.sent[-3:-1]
        assert [o["item"]["call_id"] for o in outputs] == ["a", "b"]
        assert all(
            o["item"]["type"] == "function_call_output" and "error" in o["item"]["output"] for o in outputs
        )
        assert session.sent[-1]["type"] == "response.create"
    assert session.sent[-1]["response"] == {"tool_choice": "none"}, "in the end it has to speak"
    assert not talk.all(EngineFailed)


def test_a_call_of_an_interrupted_response_is_answered_without_a_new_response() -> None:
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Transfer me.")
    talk.event("response.created", response={"id": "r1"})
    item = {"type": "function_call", "call_id": "a", "name": "transfer", "status": "completed"}
    talk.event("response.output_item.done", response_id="r1", item=item)
    talk.finishes("r1", "cancelled")
    assert session.kinds() == ["conversation.item.create"]


def test_usage_is_priced_and_summed() -> None:
    talk = Talk()
    talk.begin()
    usage = {
        "input_token_details": {
            "text_tokens": 100,
            "audio_tokens": 50,
            "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 10},
        },
        "output_token_details": {"text_tokens": 20, "audio_tokens": 30},
    }
    for response in ("r1", "r2"):
        talk.answers(response, "Hi.", done=False)
        talk.finishes(response, usage=usage)
    used = talk.all(EngineUsed)
    assert used[0].amounts == {
        "text_in": 40,
        "text_in_cached": 60,
        "text_out": 20,
        "audio_in": 40,
        "audio_in_cached": 10,
        "audio_out": 30,
    }
    cost = (40 * 1 + 60 * 2 + 20 * 4 + 40 * 8 + 10 * 16 + 30 * 32) / 1e6
    assert used[0].cost_usd == pytest.approx(cost)
    assert used[1].call_cost_usd == pytest.approx(2 * cost)


# --- sessions that are lost


def test_a_new_session_knows_what_was_said_and_heard() -> None:
    talk = Talk(manners=replace(MANNERS, greeting="Hello."))
    talk.begin()
    talk.answers("r0", "Hello.", ms=300)
    talk.silence(400)
    talk.server_hears("u1", transcript="Count.")
    talk.answers("r1", "One two three four five six seven eight.", ms=4000)
    talk.silence(1200)
    talk.server_hears("u2", transcript="Stop.")
    talk.answers("r2", "Fine.", ms=300)
    talk.silence(500)
    talk.lose()
    session = talk.begin()
    assert [
        (event["item"]["role"], event["item"]["content"][0]["type"], event["item"]["content"][0]["text"])
        for event in session.of("conversation.item.create")
    ] == [
        ("user", "input_text", CALL_BEGINS),
        ("assistant", "output_text", "Hello."),
        ("user", "input_text", "Count."),
        ("assistant", "output_text", "One two three —"),
        ("user", "input_text", "Stop."),
        ("assistant", "output_text", "Fine."),
    ]
    assert session.of("response.create") == [], "nobody waits for an answer"


def test_what_was_received_is_played_to_its_end_and_the_next_session_goes_on() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Count.")
    talk.answers("r1", "One two three", ms=900, done=False)
    talk.silence(200)
    talk.lose()
    talk.silence(1200)
    assert talk.heard_ms("r1-item") == 900
    (said,) = talk.all(BotSaid)
    assert said.interrupted and said.heard == "One two three"
    session = talk.begin()
    assert session.sent[-2]["item"]["content"][0]["text"] == "One two three —"
    instructions = session.sent[-1]["response"]["instructions"]
    assert instructions.startswith("Be brief.") and "Go on" in instructions


@pytest.mark.parametrize(("known", "whole"), [(True, True), (True, False), (False, True)])
def test_an_answer_that_is_still_being_heard_is_handed_on_too(known: bool, whole: bool) -> None:
    """The server is quicker than the ear: a break nearly always comes while the bot is speaking."""
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Count." if known else "")
    talk.answers("r1", "One two three four.", ms=3000, done=whole)
    talk.silence(400)
    talk.lose()
    session = talk.begin()
    question, answer = (e["item"]["content"][0] for e in session.of("conversation.item.create"))
    assert question["type"] == ("input_text" if known else "input_audio")
    assert answer == {
        "type": "output_text",
        "text": "One two three four." if whole else "One two three four. —",
    }
    assert bool(session.of("response.create")) != whole, "only what was broken off goes on"
    talk.speak(400)
    talk.event("input_audio_buffer.speech_started", item_id="u2", audio_start_ms=0)
    assert not session.of("conversation.item.truncate"), "the new session does not know that item"
    assert talk.all(BargeIn)


def test_a_turn_that_a_stalled_connection_never_took_is_handed_on() -> None:
    talk = Talk()
    talk.begin()
    talk.silence(200)
    talk.speak(2000)
    talk.silence(3000)
    talk.lose()
    session = talk.begin()
    assert session.kinds() == ["conversation.item.create", "response.create"]


def test_a_response_that_was_asked_for_before_the_caller_spoke_is_cancelled_when_it_comes() -> None:
    talk = Talk(manners=replace(MANNERS, greeting="Hello."))
    session = talk.begin()
    talk.silence(200)
    talk.speak(200)
    talk.event("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)
    talk.answers("r0", "Hello.", ms=2000)
    talk.speak(600)
    assert session.of("response.cancel") == [{"type": "response.cancel", "response_id": "r0"}]
    assert not any(talk.playout.sent)


def test_nothing_is_asked_for_while_the_caller_speaks_as_the_session_begins() -> None:
    talk = Talk(manners=replace(MANNERS, greeting="Hello."))
    talk.silence(200)
    talk.speak(400)
    assert talk.begin().kinds() == []


def test_without_transcription_the_bot_s_words_do_not_wait_for_the_caller_s() -> None:
    talk = Talk(replace(SETTINGS, transcription_model=""))
    talk.begin()
    talk.server_hears("u1")
    talk.answers("r1", "One.", ms=400)
    talk.silence(600)
    assert [f.text for f in talk.all(BotSaid)] == ["One."]


def test_numbers_that_are_none_cost_nothing() -> None:
    talk = Talk()
    talk.begin()
    talk.event("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=float("inf"))
    talk.event("input_audio_buffer.speech_stopped", item_id="u1", audio_end_ms=float("nan"))
    talk.event("response.output_audio.delta", response_id="r", item_id="i", content_index=1e300, delta="")
    usage = {"output_token_details": {"audio_tokens": float("inf")}}
    talk.answers("r1", "One.", done=False)
    talk.finishes("r1", usage=usage)
    talk.silence(1200)
    assert [f.text for f in talk.all(BotSaid)] == ["One."]


def test_a_caller_who_is_too_soft_for_our_detector_is_answered_when_the_bot_is_silent() -> None:
    talk = Talk(replace(SETTINGS, barge_in="local"))
    session = talk.begin()
    talk.silence(400)
    talk.event("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=100)
    talk.silence(800)
    talk.end_turn("u1")
    assert session.kinds() == ["response.create"]


def test_transcription_is_counted_and_priced_by_the_minute() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1")
    kind = "conversation.item.input_audio_transcription.completed"
    talk.event(kind, item_id="u1", transcript="Hi.", usage={"type": "duration", "seconds": 3})
    (used,) = talk.all(EngineUsed)
    assert used.amounts == {"audio_ms": 3000}
    assert used.cost_usd == pytest.approx(0.006 / 20)


def test_a_turn_without_an_answer_is_handed_to_the_next_session() -> None:
    talk = Talk()
    talk.begin()
    talk.silence(500)
    talk.server_hears("u1", ms=800)
    talk.lose()
    session = talk.begin()
    item, create = session.sent
    (content,) = item["item"]["content"]
    assert content["type"] == "input_audio" and len(content["audio"]) > 800 * 48
    assert create["type"] == "response.create"
    talk.transcribed("u1", "Hello?")
    talk.answers("r1", "Hi.")
    assert [f.text for f in talk.all(CallerSaid)] == ["Hello?"]


def test_a_turn_whose_words_are_known_is_handed_on_as_words() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Hello?")
    talk.lose()
    session = talk.begin()
    assert session.sent[0]["item"]["content"] == [{"type": "input_text", "text": "Hello?"}]
    assert session.kinds() == ["conversation.item.create", "response.create"]


def test_a_turn_spoken_in_a_gap_is_handed_on_and_one_half_spoken_is_completed() -> None:
    talk = Talk()
    talk.begin()
    talk.silence(400)
    talk.lose()
    talk.speak(600)
    talk.silence(1200)
    talk.speak(400)
    session = talk.begin()
    assert session.kinds() == ["conversation.item.create"], "the answer follows when the caller has finished"
    assert session.appended_bytes == pytest.approx((400 + 300) * 48, rel=0.1), "the second, with its pre-roll"


def test_a_turn_that_ended_just_before_the_server_saw_it_end_is_not_lost_nor_handed_on_twice() -> None:
    talk = Talk()
    talk.begin()
    talk.speak(200)
    talk.event("input_audio_buffer.speech_started", item_id="u1", audio_start_ms=0)
    talk.speak(400)
    talk.silence(1100)  # our own window is 1000 ms
    talk.lose()
    assert len(talk.core.history_events()) == 1
    talk.begin()
    talk.lose()
    assert len(talk.core.history_events()) == 1

    talk = Talk()
    talk.begin()
    talk.server_hears("u1", window_ms=500, transcript="Hello?")
    talk.lose()
    talk.silence(1000)  # our own detector sees the end of the same turn now
    assert len(talk.core.history_events()) == 1


def test_noise_in_a_gap_is_not_a_turn_and_the_caller_stops_the_bot_in_a_gap_too() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Count.")
    talk.answers("r1", "One two three four five six.", ms=3000)
    talk.silence(300)
    talk.lose()
    talk.speak(200)
    assert len(talk.all(BargeIn)) == 1 and not talk.playout.speaking
    talk.silence(1500)
    assert [e["item"]["role"] for e in talk.core.history_events()] == ["user", "assistant"]


def test_a_gap_is_bridged_by_a_local_sentence_only_when_the_bot_owes_an_answer() -> None:
    talk = Talk()
    talk.begin()
    talk.lose()
    talk.silence(5000)
    assert not any(talk.playout.sent)
    talk.begin()
    talk.server_hears("u1", transcript="Hello?")
    talk.lose()
    talk.silence(2400)
    assert not any(talk.playout.sent)
    talk.silence(600)
    assert {item for item in talk.playout.sent if item} == {"local.hold1"}


def test_a_session_is_changed_only_in_quiet() -> None:
    talk = Talk()
    talk.begin()
    talk.silence(200)
    assert talk.core.quiet
    talk.speak(40)
    assert not talk.core.quiet
    talk.server_hears("u1", transcript="Hello?")
    assert not talk.core.quiet
    talk.answers("r1", "Hi.", ms=400)
    assert not talk.core.quiet
    talk.silence(1500)
    assert talk.core.quiet


# --- failures


def test_a_failed_response_is_answered_by_a_local_sentence_and_the_third_in_a_row_ends_it() -> None:
    talk = Talk()
    talk.begin()
    for number in (1, 2, 3):
        talk.server_hears(f"u{number}", transcript="Hello?")
        talk.event("response.created", response={"id": f"r{number}"})
        details = {"type": "failed", "error": {"code": "server_error", "message": "Oh."}}
        talk.finishes(f"r{number}", "failed", status_details=details)
        assert [f.message for f in talk.all(EngineFailed)] == ["server_error: Oh."] * number
        talk.silence(100)
        assert talk.playout.speaking and not talk.all(GaveUp)
        talk.silence(600)
    assert [f.reason for f in talk.all(GaveUp)] == ["realtime: server_error: Oh."]
    assert talk.playout.sent.count("local.farewell") == 400 // 20


def test_a_whole_answer_forgives_earlier_failures() -> None:
    talk = Talk()
    talk.begin()
    for number in range(5):
        talk.server_hears(f"u{number}", transcript="Hello?")
        if number % 2:
            talk.answers(f"r{number}", "Hi.", ms=300)
        else:
            talk.answers(f"r{number}", "", ms=0)
        talk.silence(800)
    assert [f.message for f in talk.all(EngineFailed)] == ["the answer was empty"] * 3
    assert not talk.all(GaveUp)


def test_a_fatal_error_ends_it_at_once_and_its_last_words_are_not_interrupted() -> None:
    talk = Talk()
    session = talk.begin()
    talk.event("error", error={"code": "insufficient_quota", "message": "No credit."})
    talk.speak(200)
    assert talk.core.giving_up and not talk.all(GaveUp)
    talk.silence(400)
    assert len(talk.all(GaveUp)) == 1
    assert talk.playout.sent.count("local.farewell") == 400 // 20
    assert session.appends == 0


def test_a_fatal_error_in_mid_answer_does_not_leave_the_last_words_waiting_behind_it() -> None:
    talk = Talk()
    talk.begin()
    talk.answers("r1", "One two", ms=300, done=False)
    talk.silence(100)
    talk.event("error", error={"code": "insufficient_quota", "message": "No credit."})
    talk.says("r1", "three four", ms=3000)
    talk.silence(900)
    assert talk.heard_ms("r1-item") == 300
    assert talk.playout.sent.count("local.farewell") == 400 // 20
    assert len(talk.all(GaveUp)) == 1 and talk.all(BotSaid)[0].interrupted


def test_remarks_of_the_server_change_nothing() -> None:
    talk = Talk()
    talk.begin()
    message = "Audio content of 900ms is already shorter than 940ms"
    talk.event("error", error={"code": None, "message": message, "event_id": None})
    talk.event("response.output_audio.delta", response_id="r1", item_id="i", delta="not base64!")
    talk.event("something.new", anything=1)
    talk.event("response.output_audio.delta")
    talk.event("input_audio_buffer.speech_stopped", item_id="unknown", audio_end_ms="soon")
    talk.event("input_audio_buffer.committed", item_id="idle")
    talk.event("error")
    talk.silence(200)
    assert message in talk.remarks[0][1]
    assert not talk.all(EngineFailed) and not any(talk.playout.sent)


def test_a_noise_that_the_server_rightly_ignores_is_no_failure() -> None:
    talk = Talk()
    session = talk.begin()
    for _ in range(3):
        talk.silence(400)
        talk.speak(500)
        talk.silence(2700)
        (probe,) = session.of("session.update")
        assert probe["session"] == {"type": "realtime"}
        session.sent.clear()
        talk.event("session.updated", session={})
        talk.silence(10_000)
    assert not session.abandoned and not talk.all(EngineFailed)
    assert not any(talk.playout.sent)


def test_a_caller_whom_the_server_may_not_have_heard_is_asked_for_patience() -> None:
    talk = Talk()
    session = talk.begin()
    talk.speak(600)
    talk.silence(5500)
    assert session.of("session.update") and not session.abandoned
    held = dict.fromkeys(item for item in talk.playout.sent if item)
    assert list(held) == ["local.hold1"], "the sign of life is waited for"
    talk.server_hears("u1", transcript="Hello?")
    talk.answers("r1", "Yes?")
    assert not talk.all(EngineFailed)


@pytest.mark.parametrize("answering", [False, True])
def test_a_pause_of_ours_is_no_silence_of_the_server(answering: bool) -> None:
    """Of the whole process, say: what the server sent meanwhile has not been read yet."""
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Hello?")
    talk.answers("r1", "One two", ms=300, done=not answering)
    talk.silence(1000)
    talk.now += 3
    talk.silence(200)
    assert not session.abandoned and not talk.all(EngineFailed)


def test_who_waits_for_a_sign_of_life_does_not_wait_in_silence() -> None:
    talk = Talk()
    session = talk.begin()
    talk.speak(600)
    talk.silence(1000)  # the window that ends a turn
    spoken = len(talk.playout.sent)
    talk.silence(6000)
    assert session.of("session.update") and not session.abandoned
    silences = [len(list(run)) for item, run in groupby(talk.playout.sent[spoken:]) if item is None]
    assert max(silences) * 20 <= 2600
    assert {item for item in talk.playout.sent if item} == {"local.hold1", "local.hold2"}


@pytest.mark.parametrize("caller_speaks", [False, True])
def test_an_answer_that_stops_in_the_middle_is_not_waited_for_in_silence(caller_speaks: bool) -> None:
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Hello?")
    talk.answers("r1", "One two", ms=300, done=False)
    talk.silence(500)
    if caller_speaks:
        talk.speak(600)
        talk.silence(1000)
    talk.silence(3000)
    assert session.of("session.update") and not session.abandoned
    assert any(item and item.startswith("local.hold") for item in talk.playout.sent)
    assert not talk.playout.speaking, "nobody waits for the rest of the answer"


@pytest.mark.parametrize("stage", ["after the turn", "after the request", "in mid-answer", "deaf"])
def test_a_server_that_goes_silent_is_abandoned_and_the_caller_is_told(stage: str) -> None:
    talk = Talk()
    session = talk.begin()
    match stage:
        case "after the turn":
            talk.server_hears("u1", transcript="Hello?")
        case "after the request":
            talk.server_hears("u1", transcript="Hello?")
            talk.event("response.created", response={"id": "r1"})
        case "in mid-answer":
            talk.server_hears("u1", transcript="Hello?")
            talk.answers("r1", "One two", ms=300, done=False)
        case "deaf":
            talk.silence(200)
            talk.speak(600)
            talk.silence(1000)
    talk.silence(11_000)
    assert session.abandoned
    assert [f.message for f in talk.all(EngineFailed)] == ["the server stopped answering"]
    assert any(item and item.startswith("local.apology") for item in talk.playout.sent)


# --- a server that has gone wild


def audio_of(ms: int) -> str:
    return base64.b64encode(bytes(24 * 2 * ms)).decode()


def test_speech_without_end_is_kept_for_five_minutes_and_no_more() -> None:
    """Two hours at once: in one item, in ever new items, and in ever new responses."""
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Hello?")
    delta = audio_of(10_000)
    for number in range(720):
        response, item = f"r{number // 100}", f"i{number // 10}"
        talk.event("response.created", response={"id": response})
        talk.event("response.output_audio.delta", response_id=response, item_id=item, delta=delta)
    kept_ms = bytes_to_ms(talk.playout.given_bytes)
    assert 5 * 60_000 <= kept_ms <= 5 * 60_000 + 20_000
    assert any("nobody will hear it" in words for _, words in talk.remarks)
    assert not talk.all(EngineFailed)


def test_words_without_end_and_ever_new_items_are_kept_to_a_bound() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Hello?")
    talk.event("response.created", response={"id": "r1"})
    kind = "response.output_audio_transcript.delta"
    for number in range(1000):
        talk.event(kind, response_id="r1", item_id=f"i{number}", delta="x" * 50)
        talk.event(kind, response_id="r1", item_id="i0", delta="y" * 1000)
    talk.event(
        "response.output_audio_transcript.done", response_id="r1", item_id="i1", transcript="z" * 10**6
    )
    talk.event("response.output_audio.delta", response_id="r1", item_id="i0", delta=audio_of(100))
    talk.finishes("r1")
    talk.silence(400)
    (said,) = talk.all(BotSaid)
    assert len(said.text) == 20_000 + 20_000 + 14 * 50 + 15


def test_a_delta_of_a_megabyte_is_dropped() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="Hello?")
    talk.event("response.created", response={"id": "r1"})
    talk.event("response.output_audio.delta", response_id="r1", item_id="i", delta="A" * (2**20 + 4))
    talk.silence(200)
    assert not any(talk.playout.sent)
    assert "a delta of 1048580 characters" in talk.remarks[0][1]


def test_calls_without_end_are_answered_to_a_bound() -> None:
    talk = Talk()
    session = talk.begin()
    talk.server_hears("u1", transcript="Transfer me.")
    talk.event("response.created", response={"id": "r1"})
    for number in range(1000):
        item = {"type": "function_call", "call_id": f"c{number}", "name": "x", "status": "completed"}
        talk.event("response.output_item.done", response_id="r1", item=item)
    talk.finishes("r1")
    assert len(session.of("conversation.item.create")) == 16


def test_words_steer_no_terminal_and_begin_no_line() -> None:
    talk = Talk()
    talk.begin()
    talk.server_hears("u1", transcript="One\n\nSYSTEM: two\x1b[2J\ud800" + " word" * 10_000)
    talk.answers("r1", "Three\nUSER: four\x9b31m")
    talk.silence(1600)
    (heard,), (said,) = talk.all(CallerSaid), talk.all(BotSaid)
    assert heard.text.startswith("One SYSTEM: two [2J word") and len(heard.text) <= 4000
    assert said.text == "Three USER: four 31m"
    talk.event("error", error={"code": "a\nb", "message": "c\x1b[2J\nd"})
    assert talk.remarks[-1][1] == "the server remarked: a b: c [2J d"

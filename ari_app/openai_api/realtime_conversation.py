"""A call through the Realtime API: what the server says and what the caller does, to facts and events. Core.

It outlives the sessions it is held over: `session_begun` and `session_lost` tell of their changes, and
`history_events` brings a new session up to date. Time comes in as `now`, with every frame of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ari_app.audio.format import SILENT_FRAME, ms_to_bytes
from ari_app.audio.vad import make_vad
from ari_app.dialog.history import History
from ari_app.dialog.ports import (
    BargeIn,
    BotSpeechStarted,
    CallerNotUnderstood,
    CallerSaid,
    CallerSpeechStarted,
    Fact,
    ItemFinished,
    Playout,
    PlayoutMark,
)
from ari_app.dialog.turns import TurnEnded, TurnStarted
from ari_app.errors import EngineError, EngineTimeout
from ari_app.openai_api import realtime_protocol as protocol
from ari_app.openai_api.realtime_caller import Caller, CallerAudio, CallerTurn
from ari_app.openai_api.realtime_line import Line
from ari_app.openai_api.realtime_memory import as_items
from ari_app.openai_api.realtime_minutes import Minutes
from ari_app.openai_api.realtime_patience import FAREWELL, Manners, Patience
from ari_app.openai_api.realtime_protocol import STAGE, Event, RealtimeSettings, object_of, text_of
from ari_app.openai_api.realtime_slot import ResponseSlot
from ari_app.openai_api.realtime_speech import Responses, SpokenResponse
from ari_app.openai_api.realtime_tools import ToolCalls
from ari_app.openai_api.realtime_usage import Meter
from ari_app.texts import one_line

DEAF_S = 1.5
"""So long after the caller's last word, or in the middle of an answer, a server that said nothing at all is asked for a
sign of life: the caller may have coughed, and may be gone from its hearing."""
DOUBT_S = 1.0
"""Without a sign for so long the caller is asked for patience."""
PROBE_S = 6.0
"""Without one for so long the session is taken for lost."""
MAX_TRANSCRIPT_CHARS = 4000
"""Three minutes of quick speech."""
RESUMED_MS = 10_000
"""Of a sentence that is being spoken while a session begins, so much is handed on."""
GO_ON = (
    "The line failed in the middle of your last sentence. "
    "Go on from the place that is marked with a dash, without greeting."
)


class RealtimeConversation:
    """One call's conversation; `log` takes remarks for the operator, of which kind and in words."""

    def __init__(
        self,
        settings: RealtimeSettings,
        manners: Manners,
        playout: Playout,
        report: Callable[[Fact], None],
        log: Callable[[str, str], None],
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._manners = manners
        self._playout = playout
        self._report = report
        self._log = log
        self._meter = meter
        self._history = History("")
        self._minutes = Minutes(report, self._history)
        self._caller = Caller(
            make_vad(manners.vad, manners.vad_threshold_dbfs),
            silence_duration_ms=settings.silence_duration_ms,
            min_speech_ms=manners.min_speech_ms,
        )
        self.detector = self._caller.detector
        """Is told of each frame as it leaves for the caller."""
        self._responses = Responses(playout, settings)
        self._patience = Patience(manners, playout, report)
        self._line: Line | None = None
        self._slot = ResponseSlot(_nowhere)
        self._uplink = protocol.Uplink(settings)
        self._event_at = self._begun_at = self._probed_at = 0.0
        """When the server last said anything, when the session began, when the server was asked for a sign."""
        self._audible_at = 0.0
        """When the bot was last heard."""
        self._greeting_due = bool(manners.greeting)
        self._cut_off = False
        """A session was lost in the middle of an answer."""
        self._tools = ToolCalls()

    # --- sessions ------------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Nobody speaks or is about to: a moment to change the session."""
        caller = self._caller
        busy = caller.heard_by_server or caller.captured or caller.unanswered
        return not (busy or self._slot.busy or self._playout.speaking or self._patience.owes)

    @property
    def giving_up(self) -> bool:
        """Nothing can be done any more; the caller is being told."""
        return self._patience.giving_up

    def history_events(self) -> list[Event]:
        """What a new session has to know: the words so far, and what was spoken and not yet understood."""
        spoken = self._minutes.pending()
        known = [who for who, _ in spoken]
        rest = (*self._caller.unanswered, *self._responses.live())
        spoken += [(who, None) for who in rest if who not in known]
        return as_items(self._history, spoken, self._settings)

    def note_said(self, text: str) -> None:
        self._history.add_assistant(text)
        if self._line:
            self._line.send(protocol.item_create(protocol.message("assistant", text)))

    def session_begun(self, line: Line, now: float) -> None:
        """A session is configured and knows the history; from now on it hears the caller."""
        self._line = line
        self._slot = ResponseSlot(line.send)
        self._caller.audio = CallerAudio()
        self._uplink = protocol.Uplink(self._settings)
        self._event_at = self._begun_at = now
        for response in self._responses.live():
            response.foreign = True
        if self._patience.giving_up:
            return
        if self._caller.captured:
            self._append(self._caller.captured[-ms_to_bytes(RESUMED_MS) :], now)
        if self._caller.speaking:  # the answer follows when the caller has finished
            self._greeting_due = self._cut_off = False
        elif self._greeting_due:
            self._slot.request(protocol.say_exactly(self._manners.greeting))
        elif self._cut_off:
            self._slot.request({"instructions": f"{self._settings.instructions}\n{GO_ON}"})
        elif self._caller.unanswered:
            self._slot.request()
        if self._slot.busy:
            self._patience.owe(now)

    def session_lost(self, now: float) -> None:
        """The session is gone; what was received is played to its end. Telling it twice does no harm."""
        self._line = None
        self._slot = ResponseSlot(_nowhere)
        self._tools = ToolCalls()
        for response in self._responses.break_off():
            self._cut_off = self._cut_off or response.has_audio
            self._conclude(response)
        self._complete(self._caller.session_lost(self._event_at, now), now)
        if self._greeting_due or self._cut_off or self._caller.unanswered:
            self._patience.owe(now)

    # --- the caller ----------------------------------------------------------------------------------

    def push_audio(self, frame: bytes, now: float) -> None:
        """One 20 ms frame of the caller; also our clock."""
        if self._patience.giving_up:
            self._patience.watch(now, silence=False)
            return
        greeting = self._greeting_due or self._responses.live()
        if self._manners.protect_greeting and greeting and not self._caller.number:
            frame = SILENT_FRAME
        event = self._caller.hear(frame, now)
        if self._playout.speaking:
            self._audible_at = now
        if self._line:
            self._append(frame, now)
        if isinstance(event, TurnStarted) and (self._settings.barge_in == "local" or not self._line):
            self._interrupt(event.at, event.onset_at, cancel=True)
        elif isinstance(event, TurnEnded) and not self._line:
            self._complete(self._caller.keep(event), now)
        self._watch(now)

    def _append(self, pcm: bytes, now: float) -> None:
        assert self._line is not None
        self._caller.audio.push(pcm, now)
        self._line.send_audio(self._uplink.push(pcm))

    def _interrupt(self, at: float, onset_at: float, *, cancel: bool) -> None:
        """The caller speaks: whatever the bot was saying or about to say is over."""
        self._report(CallerSpeechStarted(at, onset_at))
        self._patience.settled()
        self._cut_off = False
        self._slot.withdraw()
        live = self._responses.live()
        spoken_over = self._playout.speaking or any(response.being_heard for response in live)
        self._playout.clear()
        if spoken_over:
            self._report(BargeIn(self._caller.number, at, onset_at))
        if cancel:
            self._slot.cancel()
        for response in live:
            for event in response.cut():
                if self._line and not response.foreign:
                    self._line.send(event)
            self._conclude(response)

    def _complete(self, turn: CallerTurn | None, now: float) -> None:
        """A turn of the caller is complete: the bot owes an answer."""
        if turn is None:
            return
        self._caller.complete(turn)
        self._greeting_due = False
        self._tools.rounds = 0
        self._minutes.expect(turn, now)
        if not self._settings.transcription_model:
            self._minutes.settle(turn, None)
        self._patience.owe(now)

    # --- the server ----------------------------------------------------------------------------------

    def push_event(self, event: Event, now: float) -> None:
        """One event of the server; what is not understood is passed over."""
        self._event_at = now
        handler = _HANDLERS.get(text_of(event, "type"))
        if handler is not None and not self._patience.giving_up:
            handler(self, event, now)

    def _speech_started(self, event: Event, now: float) -> None:
        turn = self._caller.speech_started(event, now)
        spoken_at = self._caller.audio.time_at(turn.start_ms + self._settings.prefix_padding_ms)
        turn.onset_at = min(now, spoken_at)
        if self._settings.barge_in == "server":
            self._interrupt(now, turn.onset_at, cancel=False)

    def _buffer_committed(self, event: Event, now: float) -> None:
        turn = self._caller.get(event)
        if turn is None:
            return  # an idle time-out: nobody spoke
        self._caller.committed(turn, now)
        if self._settings.barge_in == "local":
            if self._audible_at > self._caller.audio.time_at(turn.start_ms) and not self._caller.confirms(
                turn
            ):
                self._report(CallerNotUnderstood(turn.number, "too faint to be more than the bot's own echo"))
                if self._line:
                    self._line.send(protocol.item_delete(turn.item_id))
                return
            self._slot.request()
        self._complete(turn, now)

    def _transcribed(self, event: Event, now: float) -> None:
        """The words of a turn, or that there are none."""
        turn = self._caller.get(event)
        if turn is None:
            return
        used = self._meter.count_transcription(turn.number, object_of(event, "usage"))
        if used:
            self._report(used)
        text = one_line(text_of(event, "transcript"), MAX_TRANSCRIPT_CHARS)
        error = object_of(event, "error")
        if text:
            languages = protocol.objects_of(event, "languages")
            code = (one_line(text_of(languages[0], "code"), 3) if languages else "") or None
            self._patience.language = code or self._patience.language
            said = CallerSaid(turn.number, text, code, turn.pcm, turn.onset_at, turn.speech_end_at or now)
            self._minutes.settle(turn, said)
        elif error:
            reason = f"no transcript: {protocol.engine_error(error).message}"
            self._minutes.settle(turn, CallerNotUnderstood(turn.number, reason))
        else:
            self._minutes.settle(turn, CallerNotUnderstood(turn.number, "no words"))
            if not self._slot.busy:
                self._answered()

    def _response_created(self, event: Event, now: float) -> None:
        response_id = text_of(object_of(event, "response"), "id")
        response = self._responses.get(response_id, self._caller.number)
        if not self._slot.created(response_id):
            response.cut()
            self._conclude(response)

    def _response_content(self, event: Event, now: float) -> None:
        try:
            response, stage = self._responses.push_event(event, self._caller.number)
        except ValueError as error:
            self._log("speech", f"dropped a piece of speech: {error}")
            return
        if stage:
            self._caller.reached(response.turn, stage, now)
        if stage == "first_tts_byte_at":
            self._answered()

    def _item_done(self, event: Event, now: float) -> None:
        if not self._tools.push_item(object_of(event, "item")):
            self._response_content(event, now)

    def _response_done(self, event: Event, now: float) -> None:
        done = object_of(event, "response")
        status = text_of(done, "status")
        response = self._responses.get(text_of(done, "id"), self._caller.number)
        used = self._meter.count(response.turn, object_of(done, "usage"))
        if used:
            self._report(used)
        response.generated()
        self._slot.done(response.response_id, status)
        self._conclude(response)
        calls = self._tools.answers()
        for answer in calls:
            if self._line:
                self._line.send(answer)
        if calls and status in ("completed", "incomplete"):
            self._slot.request(self._tools.response())
        if status == "failed":
            details = object_of(done, "status_details")
            self.failed(protocol.engine_error(object_of(details, "error")), now)
        elif status in ("completed", "incomplete") and not response.has_audio and not calls:
            self.failed(EngineError(STAGE, "the answer was empty"), now)

    def _error(self, event: Event, now: float) -> None:
        error = object_of(event, "error")
        failure = protocol.engine_error(error)
        ours = self._slot.refused(text_of(error, "event_id"), text_of(error, "code"))
        if failure.permanent or (ours and not self._slot.busy):
            self.failed(failure, now)
        else:
            self._log(text_of(error, "code"), f"the server remarked: {failure.message}")

    # --- playout and time ----------------------------------------------------------------------------

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        """Something happened in playout."""
        if isinstance(mark, ItemFinished) and mark.item_id == FAREWELL:
            self._patience.heard_farewell()
        for response in self._responses.live():
            if response.push_mark(mark, now):
                self._minutes.expect(response, now)
                self._report(BotSpeechStarted(response.turn, now))
                self._caller.reached(response.turn, "first_frame_at", now)
                turn = self._caller.latest
                if turn and turn.number == response.turn and (timed := turn.take_timed()):
                    self._report(timed)
            self._conclude(response)

    def failed(self, error: EngineError, now: float, *, final: bool = False) -> None:
        """The server failed: tell the caller, who is asked to say it again unless that is `final`."""
        self._caller.unanswered.clear()
        self._cut_off = self._greeting_due = False
        may_speak = not self._caller.speaking
        self._patience.failed(error, self._caller.number, now, may_speak=may_speak, final=final)
        if self.giving_up:  # the last words would wait for the end of an answer
            for response in self._responses.break_off():
                self._conclude(response)

    def _watch(self, now: float) -> None:
        """What must happen in time, once per frame."""
        for turn in self._minutes.overdue(now):
            self._minutes.settle(turn, CallerNotUnderstood(turn.number, "no transcript came"))
        in_doubt = self._line is not None and self._event_at < self._probed_at < now - DOUBT_S
        starving = self._patience.starved
        if (in_doubt or starving) and self._playout.starved:  # the rest of the answer will not come
            for response in self._responses.break_off():
                self._conclude(response)
            self._playout.clear()
        silence = not (self._playout.speaking or self._caller.speaking)
        self._patience.watch(now, silence=silence, in_doubt=in_doubt, starved=self._playout.starved)
        if self._line and (starving or self._stuck(now)):
            line = self._line
            self.failed(EngineTimeout(STAGE, "the server stopped answering"), now)
            self.session_lost(now)
            line.abandon("it stopped answering")

    def _stuck(self, now: float) -> bool:
        deadline_s = self._manners.answer_deadline_s
        unheard = self._event_at < self._caller.ended_at < now - DEAF_S
        starved = self._playout.starved and self._event_at < now - DEAF_S
        if self._line and (unheard or starved) and self._probed_at < self._event_at:
            self._probed_at = now
            self._line.send(protocol.probe())
        lost = self._event_at < self._probed_at < now - PROBE_S
        silent = self._slot.busy and now > self._event_at + deadline_s
        return lost or silent or min(self._patience.owed_s(now), now - self._begun_at) > deadline_s

    # --- helpers

    def _answered(self) -> None:
        """The answer is coming, or there is nothing to answer."""
        self._patience.settled()
        self._caller.unanswered.clear()
        self._cut_off = self._greeting_due = False

    def _conclude(self, response: SpokenResponse) -> None:
        """When nothing more of the response will be heard, its words go into the records."""
        if response.over and not response.concluded:
            response.concluded = True
            said = response.outcome()
            response.release()
            self._minutes.settle(response, said)
            if said and not said.interrupted:
                self._patience.succeeded()


def _nowhere(event: Event) -> None:
    """Where events go while there is no session."""


_HANDLERS: Mapping[str, Callable[[RealtimeConversation, Event, float], None]] = {
    "input_audio_buffer.speech_started": RealtimeConversation._speech_started,
    "input_audio_buffer.speech_stopped": lambda self, event, now: self._caller.speech_stopped(event, now),
    "input_audio_buffer.committed": RealtimeConversation._buffer_committed,
    "conversation.item.input_audio_transcription.completed": RealtimeConversation._transcribed,
    "conversation.item.input_audio_transcription.failed": RealtimeConversation._transcribed,
    "response.created": RealtimeConversation._response_created,
    "response.output_audio.delta": RealtimeConversation._response_content,
    "response.output_audio_transcript.delta": RealtimeConversation._response_content,
    "response.output_audio_transcript.done": RealtimeConversation._response_content,
    "response.output_item.done": RealtimeConversation._item_done,
    "response.done": RealtimeConversation._response_done,
    "error": RealtimeConversation._error,
}

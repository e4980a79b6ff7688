"""The brain of three engines: speech-to-text, chat, text-to-speech. Shell without a socket.

Every caller turn has one task: it listens (transcript, gate, history), then answers. The caller always goes
first: confirmed speech ends an answer at once, whether it is still being thought of or already heard. A turn
that is still being transcribed then is not thrown away: its words reach the history in order, and the next
turn's words join the same user message. So a caller who goes on after a pause is answered once, to all of it.

Who speaks while the bot does makes it pause at once. Whether that was an interruption is known later, by its length or
its words; if it was none, the bot goes on with the next sample and the turn leaves no trace.

The silence that ends a turn is time to work in: at a short pause its task begins as a guess, with the answer held
back. When the caller goes on the guess is thrown away and leaves no trace; when the silence is complete the turn is
committed, and what is ready is heard at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from ari_app.audio.echo import SpeechDetector
from ari_app.audio.format import FRAME_MS, TELEPHONE_RATE_HZ
from ari_app.audio.vad import make_vad
from ari_app.dialog.finished import is_finished
from ari_app.dialog.gate import rejection
from ari_app.dialog.history import History
from ari_app.dialog.interruption import SURE_MS, interrupts
from ari_app.dialog.manner import PipelineSettings
from ari_app.dialog.ports import (
    BargeIn,
    BargeInDismissed,
    BotSpeechStarted,
    CallerNotUnderstood,
    CallerSaid,
    CallerSpeechStarted,
    ChatModel,
    EngineFailed,
    Fact,
    GaveUp,
    Playout,
    PlayoutMark,
    Speculated,
    SpeechToText,
    TextToSpeech,
)
from ari_app.dialog.response import Response
from ari_app.dialog.sentences import pieces
from ari_app.dialog.silence import Lack, Silence
from ari_app.dialog.stopgap import LAST_WORDS, Stopgap
from ari_app.dialog.thought import thoughts
from ari_app.dialog.turn import Turn
from ari_app.dialog.turns import TurnEnded, TurnPaused, TurnResumed, TurnSettings, TurnStarted, TurnTracker
from ari_app.dialog.usage import Bill
from ari_app.errors import EngineError, EngineTimeout

logger = logging.getLogger(__name__)

MISUNDERSTOOD_BEFORE_REPROMPT = 2
"""One turn without words is noise; after the second in a row somebody is waiting for an answer."""


class Pipeline:
    """Implements `Brain`."""

    def __init__(
        self, stt: SpeechToText, chat: ChatModel, tts: TextToSpeech, settings: PipelineSettings
    ) -> None:
        self._stt = stt
        self._chat = chat
        self._tts = tts
        self._settings = settings
        self._detector = SpeechDetector(make_vad(settings.vad, settings.vad_threshold_dbfs))
        self._tracker = TurnTracker(
            TurnSettings(
                silence_duration_ms=settings.silence_duration_ms,
                pause_ms=settings.speculate_after_ms,
                min_speech_ms=settings.min_speech_ms,
            )
        )
        self._history = History(settings.system_message)
        self._latest: Turn | None = None
        self._number = 0
        """Of the latest turn; 0 until the caller has said something."""
        self._guess: Turn | None = None
        """The turn that may be over."""
        self._response: Response | None = None
        self._answering: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """Bounded by the deadlines: a turn lasts longer than a second, transcribing it at most seconds."""
        self._stopgap = Stopgap(settings.phrases)
        self._silence = Silence(settings.hold_after_s)
        self._bill = Bill()
        self._failures = 0
        self._misunderstood = 0
        self._doubt: TurnStarted | None = None
        """The caller speaks over the bot, which waits to know whether that is an interruption."""
        self._now = 0.0
        """When the last frame of the caller came."""
        self._unheard = ""
        """The rest of an answer that the caller spoke over; said after all when that was only noise."""
        self._unfinished = False
        """The caller spoke over an answer that was still being thought of."""
        self._deaf = True
        """Not begun, giving up or closed: the caller's audio changes nothing."""

    # --- Brain ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The stages share their connections between calls; `app.py` warms them."""

    async def start(self, playout: Playout, report: Callable[[Fact], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._playout = playout
        self._stopgap.begin(playout)
        self._report = report
        self._deaf = False
        if self._settings.greeting:
            self._commit(self._begin(None))

    def push_audio(self, frame: bytes, now: float) -> None:
        if self._deaf:
            return
        protected = self._settings.protect_greeting and self._response and self._number == 0
        voiced = self._detector.push(frame, now) and not protected
        event = self._tracker.push(frame, voiced, now)
        self._now = now
        self._mind_silence(now)
        if self._doubt and (self._tracker.speech_ms >= SURE_MS or isinstance(event, TurnEnded)):
            self._interrupt(self._doubt)
        match event:
            case TurnStarted():
                self._caller_started(event)
            case TurnPaused(so_far):
                self._guess = self._begin(so_far)
            case TurnResumed():
                if guess := self._take_guess(won=False):
                    guess.task.cancel()
            case TurnEnded() as ended:
                turn = self._take_guess(won=True) or self._begin(ended)
                if turn.ended:  # its audio stays what was transcribed
                    turn.ended = replace(ended, pcm=turn.ended.pcm)
                self._commit(turn)

    def push_sent(self, frame: bytes) -> None:
        self._detector.push_sent(frame)

    def push_mark(self, mark: PlayoutMark, now: float) -> None:
        self._stopgap.push_mark(mark)
        if self._response and self._response.push_mark(mark, now) and self._latest:
            self._latest.reached("first_frame_at", now)
            self._report(BotSpeechStarted(self._latest.number, now))
            if timed := self._latest.take_timed():
                self._report(timed)

    def note_said(self, text: str) -> None:
        self._history.add_assistant(text)

    async def close(self) -> None:
        self._deaf = True
        self._conclude()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._bill.close():
            logger.info("%s", self._bill)

    # --- the caller ----------------------------------------------------------------------------------

    def _caller_started(self, event: TurnStarted) -> None:
        self._report(CallerSpeechStarted(event.at, event.onset_at))
        if self._heard:
            self._doubt = event
            self._playout.pause()
        else:
            self._interrupt(event)

    @property
    def _heard(self) -> bool:
        """The caller hears the bot, or would if its audio came in time."""
        return self._playout.speaking or (self._response is not None and self._response.being_heard)

    def _interrupt(self, event: TurnStarted) -> None:
        """What the bot says, or was about to, is over."""
        self._doubt = None
        heard = self._heard
        if self._answering and self._latest and self._latest.in_vain:
            self._failures += 1
        self._playout.clear()
        if heard:
            self._report(BargeIn(self._number, event.at, event.onset_at))
        self._conclude()
        if self._answering:
            self._answering.cancel()
            self._answering = None

    def _dismissed(self, turn: Turn) -> bool:
        """What was understood of a short turn over the bot: True when the bot goes on as if it had not been."""
        if self._doubt is None or turn is not self._guess:
            return False
        said = self._response.text if self._response else ""
        words = turn.words or ""
        if interrupts(words, said=said, min_words=self._settings.interrupting_words):
            self._interrupt(self._doubt)
            return False
        doubt, self._doubt = self._doubt, None
        self._take_guess(won=False)
        self._tracker.close()
        self._playout.resume()
        paused_ms = (self._now - doubt.at) * 1000
        self._report(BargeInDismissed(self._number, self._now, paused_ms, words, doubt.onset_at))
        return True

    def _take_guess(self, *, won: bool) -> Turn | None:
        guess, self._guess = self._guess, None
        if guess:
            pieces = guess.response.segments if guess.response else 0
            self._report(Speculated(guess.number, won, guess.requests + pieces))
        return guess

    def _begin(self, ended: TurnEnded | None) -> Turn:
        """A turn that is over or may be; None for the greeting."""
        turn = Turn(self._number + 1 if ended else 0, ended)
        turn.task = self._loop.create_task(self._run(turn, self._latest), name=f"turn-{turn.number}")
        self._tasks.add(turn.task)
        turn.task.add_done_callback(self._tasks.discard)
        return turn

    def _commit(self, turn: Turn) -> None:
        """The turn is over: its words count, and its answer may be heard."""
        self._latest, self._number = turn, turn.number
        turn.committed.set()
        self._settle(turn)
        if turn.response:
            self._adopt(turn, turn.response)

    async def _run(self, turn: Turn, earlier: Turn | None) -> None:
        """The task of one turn, and the boundary that no fault of ours crosses."""
        self._bill.charge(turn.number, self._report)
        try:
            if turn.ended:
                await self._listen(turn, turn.ended, earlier)
                if self._dismissed(turn):
                    return
                if turn is self._guess and is_finished(turn.words or "", after_question=self._history.asked):
                    self._tracker.shorten(self._settings.finished_silence_ms)
                if not turn.words:
                    await turn.committed.wait()
                if self._may_speak(turn) and (turn.words or self._history.unanswered):
                    await self._answer(turn, self._thoughts(turn))
                elif self._may_speak(turn) and self._unfinished:
                    # Noise cut an answer that was still being thought of: only the model knows how it goes on.
                    self._history.forget_answer()
                    await self._answer(turn, self._thoughts(turn))
                elif self._may_speak(turn) and self._unheard:
                    await self._answer(turn, _pieces(self._unheard))
            else:
                await self._answer(turn, _pieces(self._settings.greeting or ""))
        except EngineError as error:
            await turn.committed.wait()
            await self._failed(turn, error)
        except Exception:
            logger.exception("turn %d failed", turn.number)
            await turn.committed.wait()
            self._conclude()
            await self._failed(turn, EngineError("conversation", "internal error"))
        finally:
            turn.listened.set()
            if timed := turn.take_timed():
                self._report(timed)

    def _may_speak(self, turn: Turn) -> bool:
        """False when the caller went on: then a later turn answers. A guess prepares what it may never say."""
        ours = turn is self._guess or (turn is self._latest and not self._tracker.speaking)
        return ours and not self._deaf

    # --- listening -----------------------------------------------------------------------------------

    async def _listen(self, turn: Turn, ended: TurnEnded, earlier: Turn | None) -> None:
        deadline_s = self._settings.stt_deadline_s
        turn.requests += 1
        try:
            async with asyncio.timeout(deadline_s):
                transcript = await self._stt.transcribe(ended.pcm, TELEPHONE_RATE_HZ)
        except TimeoutError:
            raise EngineTimeout("speech-to-text", f"no transcript within {deadline_s:g} s") from None
        turn.reached("transcript_at", self._loop.time())
        if earlier:
            await earlier.listened.wait()
        span_ms = (ended.speech_end_at - ended.onset_at) * 1000 + FRAME_MS
        turn.rejected = rejection(transcript.text, ended.speech_ms, span_ms) or ""
        turn.words = "" if turn.rejected else " ".join(transcript.text.split())
        turn.language = transcript.language
        self._settle(turn)

    def _settle(self, turn: Turn) -> None:
        """Once the turn is both over and understood: what it means to the conversation."""
        if turn.ended is None or turn.words is None or not turn.committed.is_set():
            return
        if turn.words:
            self._misunderstood = 0
            self._unheard, self._unfinished = "", False
            self._stopgap.language = turn.language or self._stopgap.language
            self._history.add_user(turn.words)
            ended = turn.ended
            self._report(
                CallerSaid(
                    *(turn.number, turn.words, turn.language, ended.pcm),
                    onset_at=ended.onset_at,
                    ended_at=ended.speech_end_at,
                )
            )
            turn.ended = replace(ended, pcm=b"")  # nobody needs it any more, and the turn lives on
        else:
            self._report(CallerNotUnderstood(turn.number, turn.rejected))
            self._not_understood(turn)
        turn.listened.set()

    def _not_understood(self, turn: Turn) -> None:
        self._misunderstood += 1
        waiting = not (self._history.unanswered or self._unheard)
        if self._misunderstood >= MISUNDERSTOOD_BEFORE_REPROMPT and waiting:
            self._misunderstood = 0
            self._stopgap.play(turn.number, "apology", name="reprompt")

    # --- answering -----------------------------------------------------------------------------------

    def _thoughts(self, turn: Turn) -> AsyncGenerator[str, None]:
        turn.requests += 1
        guessed = turn.words if turn.words and not turn.committed.is_set() else ""
        messages = self._history.messages(also=guessed)
        deadline_s = self._settings.chat_deadline_s
        return thoughts(
            self._chat, messages, deadline_s, lambda: turn.reached("first_token_at", self._loop.time())
        )

    async def _answer(self, turn: Turn, pieces: AsyncGenerator[str, None]) -> None:
        """Speak `pieces` and wait until they are heard; interrupted by cancelling, after `_conclude`."""
        turn.response = response = Response(
            turn.number,
            self._tts,
            self._playout,
            deadline_s=self._settings.tts_deadline_s,
            reached=lambda stage: turn.reached(stage, self._loop.time()),
            held=not turn.committed.is_set(),
        )
        if turn.committed.is_set():
            self._adopt(turn, response)
        try:
            async with turn.patience():
                await response.speak(pieces)
            await turn.committed.wait()
            self._failures = 0
        except TimeoutError:
            response.break_off()
            await self._failed(
                turn, EngineTimeout(response.awaited, "the answer came too slowly to be spoken")
            )
        except EngineError as error:
            await turn.committed.wait()
            await self._failed(turn, error)  # its sentence follows what was already given to playout
        await response.heard()
        self._conclude()
        self._answering = None

    def _adopt(self, turn: Turn, response: Response) -> None:
        """From now on this is what the bot says."""
        self._answering = turn.task
        self._unheard, self._unfinished = "", False
        self._response = response
        response.release()

    def _conclude(self) -> None:
        """The current response is over, by its end or by force: keep what was heard."""
        response, self._response = self._response, None
        if response is None:
            return
        said = response.outcome()
        self._unheard = response.text.removeprefix(said.heard if said else "")
        self._unfinished = said is not None and not response.complete
        response.forget()
        if said:
            self._history.add_assistant(said.heard, interrupted=said.interrupted)
            self._report(said)

    # --- when things go wrong ------------------------------------------------------------------------

    async def _failed(self, turn: Turn, error: EngineError) -> None:
        """Tell the caller, and give up when trying again is no use; the last words are not interrupted."""
        self._failures += 1
        self._report(EngineFailed(turn.number, error.stage, error.message, error.permanent, error.kind))
        if not self._may_speak(turn):
            return  # the caller went on; the later turn will see for itself
        if not (error.permanent or self._failures >= self._settings.max_failures):
            self._stopgap.play(turn.number, "apology")
            return
        self._deaf = True
        if self._stopgap.play(turn.number, LAST_WORDS):
            await self._stopgap.last_words_heard()
        self._conclude()
        self._report(GaveUp(str(error)))

    def _mind_silence(self, now: float) -> None:
        """Nobody waits in silence: not before an answer, and not in the middle of one."""
        turn = self._latest
        if turn is None or turn.task.done() or self._doubt or self._tracker.speaking:
            self._silence.push(now, due=False)
            return
        starved = self._playout.starved
        sounding = self._playout.speaking and not starved
        lack = self._silence.push(now, due=True, sounding=sounding, unfinished=starved)
        hopeless = lack is Lack.THE_ANSWER or self._failures >= self._settings.max_failures
        if lack and not (hopeless and turn.lose_patience(self._loop.time())) and lack is Lack.A_WORD:
            turn.put_off = self._stopgap.play(turn.number, "hold")


async def _pieces(text: str) -> AsyncGenerator[str, None]:
    for piece in pieces(text):
        yield piece

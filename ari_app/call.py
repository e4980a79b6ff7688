"""One call from its first event to its last: the file to read first. Shell.

A `Call` owns every resource of its call: in Asterisk the channels and the bridge, here the RTP endpoint, the
brain, the recorder and all tasks. `ari/callflow.py` decides what happens next; this file carries its commands
out and reports the results back, until nothing of the call is left.

    Asterisk ──RTP──> endpoint ──frames──> brain (and recorder)
    Asterisk <──RTP── endpoint <──pacer──< brain
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from ari_app import logs
from ari_app.ari import events, facts
from ari_app.ari.callflow import CallFlow, State
from ari_app.ari.ids import Kind, object_id
from ari_app.ari.outcome import Ending
from ari_app.ari.rest import AriRest
from ari_app.audio.codec import pcm16_to_slin, slin_to_pcm16
from ari_app.dialog import ports
from ari_app.errors import AriAppError
from ari_app.guard import is_number
from ari_app.happenings import Ended, Happening, LineHeard, Observer, Progress, RecordingFailed
from ari_app.line import LineWatch
from ari_app.record.recording import OpenRecorder, Recording
from ari_app.rtp.endpoint import RtpEndpoint
from ari_app.rtp.sender import RtpSender

logger = logging.getLogger(__name__)

SETUP_TIMEOUT_S = 10
"""Bridge, media and answer take some milliseconds; after this long the caller must not be kept waiting."""
ABANDON_TIMEOUT_S = 2
TRANSFER_VARIABLE = "ARI_APP_TRANSFER"
MAX_FACTS = 256
"""A call knows a few dozen facts in its life. When this many wait it is stuck, and is ended."""


@dataclass(frozen=True, slots=True)
class Dial:
    """What an outbound call needs."""

    endpoint: str
    """Asterisk dial string, e.g. `PJSIP/100@trunk`."""
    caller_id: str = ""
    ring_timeout_s: float = 45


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What all calls of the process share."""

    tag: str
    """Names this instance in object ids."""
    rtp_host: str = "127.0.0.1"
    rtp_ports: tuple[int, int] | None = None
    max_call_s: float = 3600
    no_audio_s: float = 0
    """A line that carries nothing for so long, in either direction, is hung up; 0: never."""
    on_failure: str = "dialplan"
    """What becomes of a caller whom the bot gives up: `dialplan`, `hangup`, or the extension that takes them."""
    handover_keys: str = ""
    """An inbound caller who presses one of them goes on in the dialplan."""


class Call:
    """One call. Construct without effect; `run` holds it; `push_event` and `hang_up` may come at any time."""

    def __init__(
        self,
        call_id: str,
        *,
        ari: AriRest,
        sender: RtpSender,
        brain: ports.Brain,
        settings: CallSettings,
        caller_channel_id: str | None = None,
        dial: Dial | None = None,
        open_recorder: OpenRecorder | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        if (caller_channel_id is None) == (dial is None):
            raise ValueError("a call is either inbound, with the caller's channel, or outbound")
        self.call_id = call_id
        self._ari = ari
        self._sender = sender
        self._brain = brain
        self._settings = settings
        self._dial = dial
        self.is_inbound = dial is None
        self.observers = observers
        self.on_hold: Callable[[bool], None] = lambda held: None
        """Is told when the far end holds the call, and when it takes it back."""
        self.tap: Callable[[str, bytes], None] | None = None
        """Is given each frame of `caller` and `bot`."""
        self.far_id = caller_channel_id or object_id(settings.tag, call_id, Kind.CALLEE)
        self.media_id = object_id(settings.tag, call_id, Kind.MEDIA)
        self.bridge_id = object_id(settings.tag, call_id, Kind.BRIDGE)
        self._flow = CallFlow()
        self._facts: asyncio.Queue[facts.Fact] = asyncio.Queue(MAX_FACTS)
        self._steps: dict[facts.Step, asyncio.Task[None]] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._endpoint: RtpEndpoint | None = None
        self.recording = Recording(open_recorder, lambda why: self._observe(RecordingFailed(why)))
        self._conversing = False
        self._transfer_to = ""
        self._line = LineWatch(
            lambda: ari.line_quality(self.far_id),
            observe=lambda quality: self._observe(LineHeard(quality)),
            dead=self.hang_up,
            limit_s=settings.no_audio_s,
        )
        self._watching: asyncio.Task[None] | None = None
        self.known_channels: set[str] = set()
        """Channels of this call that exist for all we know."""
        self._task: asyncio.Task[object] | None = None
        if dial is None:
            self._push(facts.CallerArrived())  # ahead of all that may be pushed before `run` gets its turn

    # --- from outside

    async def run(self) -> Ending:
        """Hold the call to its end."""
        logs.current_call.set(self.call_id)
        self._task = asyncio.current_task()
        self._brain.prepare()
        if self._dial is None:
            self._set_timer(SETUP_TIMEOUT_S, facts.SetupTimedOut())
        else:
            self._push(facts.DialWanted())
        try:
            while self._flow.state is not State.ENDED:
                self._take(await self._facts.get())
        finally:
            await self._release()
        ending = self._flow.ending
        assert ending is not None
        return ending

    def push_event(self, event: events.Event) -> None:
        """An ARI event about one of this call's objects. Never blocks, never raises."""
        match event:  # after a reconnect it is told again
            case events.ChannelHold(channel_id=self.far_id, held=held) if held != self._line.held:
                logger.info("the other side %s the call", "holds" if held else "resumes")
                self._line.held = held
                self.on_hold(held)
        fact = facts.fact_of(
            event,
            far_id=self.far_id,
            media_id=self.media_id,
            outbound=not self.is_inbound,
            handover_keys=self._settings.handover_keys,
        )
        if fact is not None:
            self._push(fact)

    def hang_up(self, why: str) -> None:
        """End the call from our side."""
        self._push(facts.HangupWanted(why))

    def transfer(self, extension: str) -> None:
        """End an inbound call by giving the caller to the dialplan, with `extension` in ARI_APP_TRANSFER.

        Raises:
            ValueError: it is none; in the dialplan other characters would be more than text.
        """
        if not is_number(extension):
            raise ValueError(f"not an extension: {extension!r:.60}")
        self._transfer_to = extension
        self._push(facts.HandBackWanted("transfer", "transferred"))

    # --- the flow

    def _push(self, fact: facts.Fact) -> None:
        try:
            self._facts.put_nowait(fact)
        except asyncio.QueueFull:
            if self._task is not None and not self._task.cancelling():
                logger.error("%d facts wait: the call is stuck and is ended", MAX_FACTS)
                self._task.cancel()

    def _take(self, fact: facts.Fact) -> None:
        before = self._flow.state
        try:
            commands = self._flow.push(fact)
        except ValueError:  # a gap in our table must not cost the call
            logger.exception("unexpected fact %r", fact)
            return
        self._note_channels(fact)
        if isinstance(fact, facts.StepFailed):
            logger.warning("%s failed: %s", type(fact.command).__name__, fact.error)
        if self._flow.state is not before:
            self._enter(self._flow.state)
        for command in commands:
            if isinstance(command, facts.Finished):
                self._report_end(command.ending)
            else:
                self._begin(command)

    def _note_channels(self, fact: facts.Fact) -> None:
        match fact:
            case facts.CallerArrived() | facts.StepDone(command=facts.Originate()):
                self.known_channels.add(self.far_id)
            case facts.StepDone(command=facts.CreateMedia()):
                self.known_channels.add(self.media_id)
            case facts.FarLeft() | facts.FarGone():
                self.known_channels.discard(self.far_id)
            case facts.MediaGone():
                self.known_channels.discard(self.media_id)

    def _enter(self, state: State) -> None:
        match state:
            case State.DIALING if self._dial is not None:
                self._set_timer(self._dial.ring_timeout_s, facts.RingTimedOut())
                self._observe(Progress("dialing"))
            case State.RINGING:
                self._observe(Progress("ringing"))
            case State.ANSWERED:
                self._set_timer(SETUP_TIMEOUT_S, facts.SetupTimedOut())
                self._observe(Progress("answered"))
            case State.TALKING:
                limit_s = self._settings.max_call_s
                self._set_timer(limit_s, facts.HangupWanted(f"the limit of {limit_s:g} s was reached"))
                self._watching = asyncio.create_task(self._line.run(), name=f"{self.call_id}-line")
                self._observe(Progress("talking"))

    def _set_timer(self, delay_s: float, fact: facts.Fact) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, self._push, fact))

    # --- carrying commands out

    def _begin(self, command: facts.Step) -> None:
        task = asyncio.create_task(self._step(command), name=f"{self.call_id}-{type(command).__name__}")
        self._steps[command] = task
        task.add_done_callback(lambda _: self._steps.pop(command, None))

    async def _step(self, command: facts.Step) -> None:
        try:
            await self._carry_out(command)
        except asyncio.CancelledError:
            self._push(facts.StepFailed(command, AriAppError("cancelled")))
            raise
        except AriAppError as error:
            self._push(facts.StepFailed(command, error))
        except Exception as error:  # task boundary: a fault of ours ends this call, with its traceback
            logger.exception("%s failed", type(command).__name__)
            self._push(facts.StepFailed(command, error))
        else:
            self._push(facts.StepDone(command))

    async def _carry_out(self, command: facts.Step) -> None:
        match command:
            case facts.Originate():
                await self._originate()
            case facts.CreateBridge():
                await self._ari.create_bridge(self.bridge_id)
            case facts.CreateMedia():
                await self._create_media()
            case facts.Answer():
                await self._ari.answer(self.far_id)
            case facts.Join():
                await self._ari.add_channels(self.bridge_id, [self.far_id, self.media_id])
            case facts.StartConversation():
                await self._start_conversation()
            case facts.StopConversation():
                await self._stop_conversation()
            case facts.HangUpFar(reason=reason):
                await self._ari.hangup(self.far_id, reason)
            case facts.HandBack(result=result):
                if self._transfer_to:
                    await self._ari.set_variable(self.far_id, TRANSFER_VARIABLE, self._transfer_to)
                ending = self._flow.ending
                await self._ari.hand_back(self.far_id, result, ending.detail if ending else "")
            case facts.HangUpMedia():
                await self._hang_up_media()
            case facts.DeleteBridge():
                await self._ari.delete_bridge(self.bridge_id)

    async def _originate(self) -> None:
        assert self._dial is not None
        # Asterisk's own limits outlast ours: they matter only when this process is gone.
        variables: Mapping[str, str] = {"TIMEOUT(absolute)": str(round(self._settings.max_call_s) + 60)}
        await self._ari.originate(
            self.far_id,
            self._dial.endpoint,
            caller_id=self._dial.caller_id,
            timeout_s=round(self._dial.ring_timeout_s) + 5,
            variables=variables,
        )

    async def _create_media(self) -> None:
        self._endpoint = RtpEndpoint(
            self._sender,
            host=self._settings.rtp_host,
            ports=self._settings.rtp_ports,
            decode=slin_to_pcm16,
            encode=pcm16_to_slin,
            on_frame=self._on_frame,
            on_sent=self._on_sent,
            on_mark=self._brain.push_mark,
        )
        await self._endpoint.open()
        host, port = self._endpoint.local_address
        remote = await self._ari.external_media(
            *(self.media_id, f"{host}:{port}"), beside=self.far_id, wanted=lambda: self._flow.ending is None
        )
        self._endpoint.connect(*remote)

    async def _hang_up_media(self) -> None:
        try:
            await self._ari.hangup(self.media_id)
        finally:
            if self._endpoint is not None:
                self._endpoint.close()

    async def _start_conversation(self) -> None:
        assert self._endpoint is not None
        self.recording.open()
        await self._brain.start(self._endpoint.playout, self._on_fact)
        self._conversing = True

    async def _stop_conversation(self) -> None:
        self._conversing = False
        if start := self._steps.get(facts.StartConversation()):
            start.cancel()
        await self._brain.close()

    # --- media and facts

    def _on_frame(self, frame: bytes, now: float) -> None:
        assert self._endpoint is not None
        self.recording.push_caller(frame, self._endpoint.heard_until)
        if self.tap is not None:
            self.tap("caller", frame)
        if self._conversing:
            self._brain.push_audio(frame, now)

    def _on_sent(self, frame: bytes, now: float) -> None:
        self.recording.push_bot(frame, now)
        if self.tap is not None:
            self.tap("bot", frame)
        if self._conversing:
            self._brain.push_sent(frame)

    def _on_fact(self, fact: ports.Fact) -> None:
        fact = self.recording.push_fact(fact)  # from here on nobody knows the words of a pause
        if isinstance(fact, ports.EngineFailed):
            logger.warning("turn %d: %s failed: %s", fact.turn, fact.stage, fact.message)  # each once, here
        elif isinstance(fact, ports.GaveUp):
            self._give_up(fact.reason)
        elif isinstance(fact, ports.Concluded):
            self._push(facts.HangupWanted(fact.reason))
        self._observe(fact)

    def _give_up(self, why: str) -> None:
        """The bot can't go on: do with the caller what the operator chose."""
        result = {"dialplan": "failed", "hangup": ""}.get(self._settings.on_failure, "transfer")
        if result == "transfer":
            self._transfer_to = self._settings.on_failure
        self._push(facts.HandBackWanted(result, why, failed=True))

    def _observe(self, what: Happening) -> None:
        for observer in self.observers:
            try:
                observer(what)
            except Exception:  # who only looks on must not silence the bot
                logger.exception("an observer failed")

    # --- the end

    def _report_end(self, ending: Ending) -> None:
        counters = asdict(self._endpoint.counters) if self._endpoint is not None else {}
        line, unheard = self._line.latest, self._line.conclude(counters.get("received", 0))
        logger.info("call ended: %s; line %s; rtp %s", ending, line or "unknown", counters)
        if line is not None:
            self._observe(LineHeard(line, final=True))
        self.recording.end(
            outcome=ending.outcome,
            by=ending.by,
            reason=str(ending),
            rtp=counters,
            line=line.told() if line else None,
            unheard=unheard,
        )
        self._observe(Ended(ending, counters, unheard))

    async def _release(self) -> None:
        """Free everything, also when `run` was cancelled in the middle; first what waits for nobody."""
        for timer in self._timers:
            timer.cancel()
        if self._endpoint is not None:
            self._endpoint.close()
        steps = [*self._steps.values(), *filter(None, (self._watching,))]
        for task in steps:
            task.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
        try:
            await self._brain.close()
        except Exception:  # its fault must not keep the rest from being freed
            logger.exception("the brain did not close")
        try:
            if self._flow.state is not State.ENDED:
                await self._abandon()
        finally:
            self.recording.finish()

    async def _abandon(self) -> None:
        """One quick try to take down what may exist in Asterisk; what resists is left to the next sweep."""
        hang_ups = [self._ari.hangup(channel_id) for channel_id in (self.far_id, self.media_id)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABANDON_TIMEOUT_S):
                await asyncio.gather(
                    *hang_ups, self._ari.delete_bridge(self.bridge_id), return_exceptions=True
                )

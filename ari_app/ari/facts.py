"""Between `call.py` and `callflow.py`: commands one way, facts the other; ARI events as facts. Core."""

from __future__ import annotations

from dataclasses import dataclass

from ari_app.ari import events
from ari_app.ari.outcome import Ending

# --- commands: what call.py does ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Originate:
    """Dial the callee, on the channel id of the call; AriNotFound means that it cannot be reached."""


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Make the call's bridge."""


@dataclass(frozen=True, slots=True)
class CreateMedia:
    """Open the RTP socket and make the ExternalMedia channel; done when Asterisk's address is known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the caller."""


@dataclass(frozen=True, slots=True)
class Join:
    """Put both channels into the bridge."""


@dataclass(frozen=True, slots=True)
class StartConversation:
    """Start the brain."""


@dataclass(frozen=True, slots=True)
class StopConversation:
    """Stop the brain; also when its start is still under way."""


@dataclass(frozen=True, slots=True)
class HangUpFar:
    """Hang up caller or callee; done also when it is gone already."""

    reason: str = "normal"
    """As in ARI: normal, busy, congestion, no_answer, ..."""


@dataclass(frozen=True, slots=True)
class HandBack:
    """Return the caller to the dialplan with ARI_APP_RESULT = `result`."""

    result: str


@dataclass(frozen=True, slots=True)
class HangUpMedia:
    """Hang up the ExternalMedia channel; done also when it is gone already."""


@dataclass(frozen=True, slots=True)
class DeleteBridge:
    """Delete the bridge; done also when it is gone already."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing of the call is left in Asterisk; the last command of every call."""

    ending: Ending


Step = (
    Originate
    | CreateBridge
    | CreateMedia
    | Answer
    | Join
    | StartConversation
    | StopConversation
    | HangUpFar
    | HandBack
    | HangUpMedia
    | DeleteBridge
)
Command = Step | Finished


# --- facts: what call.py reports ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallerArrived:
    """Inbound: StasisStart of the caller's channel."""


@dataclass(frozen=True, slots=True)
class DialWanted:
    """Outbound: begin."""


@dataclass(frozen=True, slots=True)
class Ringing:
    """The callee's side rings, or sends early media."""


@dataclass(frozen=True, slots=True)
class DialEnded:
    """The final Dial event of an outbound call that is not answered; the channel's end follows."""

    dialstatus: str


@dataclass(frozen=True, slots=True)
class CalleeAnswered:
    """Outbound: StasisStart of the callee's channel."""


@dataclass(frozen=True, slots=True)
class MediaEntered:
    """StasisStart of the ExternalMedia channel: from now on it can be bridged."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """The command succeeded."""

    command: Step


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The command failed; what it was to make may exist nevertheless."""

    command: Step
    error: Exception


@dataclass(frozen=True, slots=True)
class FarHungUp:
    """Caller or callee hung up; the channel's end follows."""


@dataclass(frozen=True, slots=True)
class FarLeft:
    """Caller's or callee's channel left the application: hung up, or taken elsewhere by somebody."""


@dataclass(frozen=True, slots=True)
class FarGone:
    """Caller's or callee's channel is no more. All None: it was not there after a reconnect."""

    cause: int | None = None
    cause_txt: str = ""
    tech_cause: int | None = None


@dataclass(frozen=True, slots=True)
class MediaGone:
    """The ExternalMedia channel is no more."""


@dataclass(frozen=True, slots=True)
class MediaUnbridged:
    """The ExternalMedia channel is out of the bridge, or there is no bridge: nobody hears anything."""


@dataclass(frozen=True, slots=True)
class RingTimedOut:
    """Our own ring timeout ran out."""


@dataclass(frozen=True, slots=True)
class SetupTimedOut:
    """The conversation should long have begun, but some step or event is missing."""


@dataclass(frozen=True, slots=True)
class HangupWanted:
    """We end the call: the operator, a limit, or a shut-down asks for it."""

    why: str


@dataclass(frozen=True, slots=True)
class HandBackWanted:
    """We end the call, and the dialplan goes on with the caller (a callee is hung up)."""

    result: str
    """For ARI_APP_RESULT: completed, handover, transfer, failed, busy; empty: the caller is hung up, too."""
    why: str
    failed: bool = False
    """The bot could not go on, whoever takes the caller now."""


Fact = (
    CallerArrived
    | DialWanted
    | Ringing
    | DialEnded
    | CalleeAnswered
    | MediaEntered
    | StepDone
    | StepFailed
    | FarHungUp
    | FarLeft
    | FarGone
    | MediaGone
    | MediaUnbridged
    | RingTimedOut
    | SetupTimedOut
    | HangupWanted
    | HandBackWanted
)


def fact_of(
    event: events.Event, *, far_id: str, media_id: str, outbound: bool, handover_keys: str = ""
) -> Fact | None:
    """What an ARI event means to the call of these objects; None for an event without meaning to its flow.

    Args:
        handover_keys: an inbound caller who presses one of them goes on in the dialplan.
    """
    match event:
        case events.ApplicationReplaced() | events.UnknownEvent():
            return None
    if event.channel_id == media_id:
        return _media_fact(event)
    if event.channel_id != far_id:
        return None
    match event:
        case events.StasisStart():
            return CalleeAnswered() if outbound else CallerArrived()
        case events.StasisEnd():
            return FarLeft()
        case events.ChannelHangupRequest(soft=False):
            return FarHungUp()
        case events.ChannelDestroyed():
            return FarGone(event.cause or 0, event.cause_txt, event.tech_cause)
        case events.ChannelVanished():
            return FarGone()
        case events.ChannelStateChange(state="Ringing") if outbound:
            return Ringing()
        case events.Dial() if outbound:
            return _dial_fact(event.dialstatus)
        case events.ChannelDtmfReceived(digit=key) if key in set(handover_keys) and not outbound:
            return HandBackWanted("handover", f"the caller pressed {key}")
        case _:
            return None


def _media_fact(event: events.ChannelEvent) -> Fact | None:
    match event:
        case events.StasisStart():
            return MediaEntered()
        case events.StasisEnd() | events.ChannelDestroyed() | events.ChannelVanished():
            return MediaGone()
        case events.ChannelLeftBridge():
            return MediaUnbridged()
        case _:
            return None


def _dial_fact(dialstatus: str) -> Fact | None:
    if dialstatus in {
        "",
        "ANSWER",
    }:  # its start; and StasisStart says when the callee's channel is ours to steer
        return None
    return Ringing() if dialstatus in {"RINGING", "PROGRESS", "PROCEEDING"} else DialEnded(dialstatus)

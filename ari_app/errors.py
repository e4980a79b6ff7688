"""Every exception this project raises on purpose.

    AriAppError
    ├── ConfigError           a setting is missing or wrong; names the setting and the remedy
    ├── LimitReached          one outbound call more than a limit allows; names the setting
    ├── NoSuchCall            the call is over, or what was asked of it is not possible
    ├── DiskTooSlow           the disk of the recordings does not answer
    ├── SetupError            something the machine must have is not there (Asterisk, a package, a port)
    ├── AriError              Asterisk's REST interface or event websocket
    │   ├── AriUnreachable    nobody answers at the URL, or Asterisk is still starting
    │   ├── AriUnauthorized   user or password refused
    │   ├── AriNotFound       the channel, bridge or resource is gone
    │   ├── AriConflict       the object is in a state that forbids the request, or the id is taken
    │   └── AriReplaced       another process registered the same Stasis application
    ├── MediaError            RTP: no free port, socket failure
    └── EngineError           speech-to-text, chat or text-to-speech; names the stage
        ├── EngineUnreachable no connection, or it broke
        ├── EngineUnavailable not asked, because it keeps failing
        ├── EngineTimeout     no answer in time
        └── EngineRejected    an HTTP error status; ``permanent`` says whether a retry can help

Each ``str()`` is one sentence an operator can act on; secrets never appear in it.
"""

from __future__ import annotations


class AriAppError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(AriAppError):
    """A setting is missing or wrong; the text names the setting and the remedy."""


class LimitReached(AriAppError):
    """An outbound call more than a limit allows; the text names the setting."""


class NoSuchCall(AriAppError):
    """The call is over, or what was asked of it is not possible; the text says which."""


class DiskTooSlow(AriAppError):
    """The disk of the recordings does not answer."""


class SetupError(AriAppError):
    """The machine lacks something that the command needs; the text says how to get it."""


class AriError(AriAppError):
    """A request to Asterisk failed.

    Attributes:
        attempted: what we tried to do, e.g. ``"create bridge 1f…"``.
        status: the HTTP status, or ``None`` when there was no answer.
        message: Asterisk's own words, or the reason there was no answer.
    """

    def __init__(self, attempted: str, status: int | None, message: str) -> None:
        self.attempted = attempted
        self.status = status
        self.message = message
        code = "" if status is None else f" (HTTP {status})"
        super().__init__(f"could not {attempted}{code}: {message}")


class AriUnreachable(AriError):
    """Nobody answers at the ARI URL, or Asterisk is still starting."""


class AriUnauthorized(AriError):
    """ARI user or password refused."""


class AriNotFound(AriError):
    """The object of the request no longer exists."""


class AriConflict(AriError):
    """The object is in a state that forbids the request, or its id is taken."""


class AriFull(AriError):
    """All lines are taken: Asterisk has no RTP port for another call."""


class AriReplaced(AriError):
    """Another process registered the same Stasis application; this one no longer gets events."""


class MediaError(AriAppError):
    """The RTP side failed: no free port, or the socket broke."""


class EngineError(AriAppError):
    """An engine stage failed.

    Attributes:
        stage: ``"speech-to-text"``, ``"chat"`` or ``"text-to-speech"``.
        permanent: True when repeating the same request cannot help (bad key, unknown model, no quota).
        kind: one word for what went wrong.
    """

    kind = "failed"

    def __init__(self, stage: str, message: str, *, permanent: bool = False) -> None:
        self.stage = stage
        self.message = message
        self.permanent = permanent
        super().__init__(f"{stage}: {message}")


class EngineUnreachable(EngineError):
    """The engine could not be reached, or the connection broke."""

    kind = "unreachable"


class EngineUnavailable(EngineError):
    """The engine keeps failing, so nobody asks it for now."""

    kind = "unavailable"


class EngineTimeout(EngineError):
    """The engine did not answer in time."""

    kind = "timeout"


class EngineRejected(EngineError):
    """The engine answered with an HTTP error status, or refused in the words of its protocol.

    Attributes:
        status: the HTTP status, or ``None`` when there was none.
        retry_after_s: the server's wish, in seconds (RFC 9110, section 10.2.3).
    """

    kind = "rejected"

    def __init__(
        self,
        stage: str,
        message: str,
        *,
        permanent: bool = False,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(stage, message, permanent=permanent)

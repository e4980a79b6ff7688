"""Asterisk's REST interface: a typed method per request we make, over aioari's operations. Shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ari_app.ari.events import Bridge, Channel

RESULT_VARIABLE = "ARI_APP_RESULT"
"""Channel variable that tells the dialplan how the conversation went."""


class AriRest:
    """The requests. All raise `AriError` or one of its kinds; deleting what is gone already succeeds."""

    async def ping(self) -> None:
        """Succeeds when Asterisk is up and has finished starting."""
        raise NotImplementedError

    async def version(self) -> str:
        """Asterisk's version, e.g. "22.10.1"."""
        raise NotImplementedError

    async def list_channels(self) -> list[Channel]:
        """All channels of this Asterisk."""
        raise NotImplementedError

    async def list_bridges(self) -> list[Bridge]:
        """All bridges of this Asterisk."""
        raise NotImplementedError

    async def get_channel(self, channel_id: str) -> Channel:
        """One channel."""
        raise NotImplementedError

    async def create_bridge(self, bridge_id: str, name: str = "") -> None:
        """A mixing bridge with that id."""
        raise NotImplementedError

    async def delete_bridge(self, bridge_id: str) -> None:
        """Its channels leave it and stay."""
        raise NotImplementedError

    async def add_channels(self, bridge_id: str, channel_ids: Sequence[str]) -> None:
        """Put channels, which are in our application, into the bridge."""
        raise NotImplementedError

    async def external_media(
        self, channel_id: str, external_host: str, format: str = "slin"
    ) -> tuple[str, int]:
        """An RTP channel that sends to `external_host` ("ip:port"); returns where Asterisk listens."""
        raise NotImplementedError

    async def originate(
        self,
        channel_id: str,
        endpoint: str,
        *,
        app_args: str = "",
        caller_id: str = "",
        timeout_s: int,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Dial `endpoint` (e.g. PJSIP/100@trunk); on answer the channel enters our application."""
        raise NotImplementedError

    async def answer(self, channel_id: str) -> None:
        """Answer an inbound channel."""
        raise NotImplementedError

    async def ring(self, channel_id: str) -> None:
        """Let an inbound channel hear ringing."""
        raise NotImplementedError

    async def hangup(self, channel_id: str, reason: str = "normal") -> None:
        """`reason`: normal, busy, congestion, no_answer, ..."""
        raise NotImplementedError

    async def continue_in_dialplan(
        self, channel_id: str, *, context: str = "", extension: str = "", priority: int | None = None
    ) -> None:
        """Leave our application; without arguments at the step after Stasis()."""
        raise NotImplementedError

    async def hand_back(self, channel_id: str, result: str) -> None:
        """Set ARI_APP_RESULT and go on in the dialplan."""
        raise NotImplementedError

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        """Set a channel variable."""
        raise NotImplementedError

    async def get_variable(self, channel_id: str, name: str) -> str:
        """Read a channel variable or dialplan function."""
        raise NotImplementedError

    async def send_dtmf(self, channel_id: str, digits: str) -> None:
        """Send keys to the far end."""
        raise NotImplementedError

"""A phone agent for Asterisk: ARI for the call, ExternalMedia RTP for the audio, an AI for the words."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["WhisperAssistantBridge", "__version__"]

if TYPE_CHECKING:
    from ari_app.bridge import WhisperAssistantBridge


def __getattr__(name: str) -> object:
    """Import the bridge when it is asked for: `ari_app --version` need not wait a second for an SDK."""
    if name == "WhisperAssistantBridge":
        from ari_app.bridge import WhisperAssistantBridge

        return WhisperAssistantBridge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

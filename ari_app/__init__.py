"""A phone agent for Asterisk: ARI for the call, ExternalMedia RTP for the audio, an AI for the words."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["OpenAIRealtimeBridge", "WhisperAssistantBridge", "__version__"]

if TYPE_CHECKING:
    from ari_app.bridge import OpenAIRealtimeBridge, WhisperAssistantBridge


def __getattr__(name: str) -> object:
    """Import a bridge when it is asked for: `ari_app --version` need not wait a second for an SDK."""
    if name in ("OpenAIRealtimeBridge", "WhisperAssistantBridge"):
        from ari_app import bridge

        return getattr(bridge, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

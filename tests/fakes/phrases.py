"""Phrasebooks of sentences that have a sound and no meaning."""

from __future__ import annotations

from ari_app.dialog.phrasebook import Phrasebook


def phrasebook(**speech: bytes) -> Phrasebook:
    """PCM by purpose; what is not given is never said."""
    phrases = Phrasebook({"en": {purpose: f"{purpose}." for purpose in speech}})
    for purpose, pcm in speech.items():
        phrases.put(f"{purpose}.", pcm)
    return phrases

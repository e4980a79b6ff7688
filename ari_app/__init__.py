"""A phone agent for Asterisk: ARI for the call, ExternalMedia RTP for the audio, an AI for the words."""

__version__ = "0.1.0"

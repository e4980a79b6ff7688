"""One response of a Realtime session: the events from `response.created` to `response.done`. Core."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

from ari_app.offline.realtime_audio import duration_ms
from ari_app.offline.realtime_config import Event
from ari_app.offline.realtime_items import Item

INPUT_TOKENS_PER_S = 10
OUTPUT_TOKENS_PER_S = 20
"""OpenAI's rates for audio; a text token is a word here."""


class Response:
    """Sends its events; whoever owns it says when it begins, goes on and ends.

    Args:
        settings: from `realtime_config.response_settings`.
        conversation_id: None for one out of band.
    """

    def __init__(
        self,
        response_id: str,
        item_id: str,
        settings: Event,
        conversation_id: str | None,
        send: Callable[[Event], None],
    ) -> None:
        self.id = response_id
        self.settings = settings
        self.conversation_id = conversation_id
        self._send = send
        self.spoken = settings["output_modalities"] == ["audio"]
        self.format: dict[str, Any] = settings["output"]["format"]
        part = (
            {"type": "output_audio", "transcript": ""} if self.spoken else {"type": "output_text", "text": ""}
        )
        self.item = Item(
            {
                "id": item_id,
                "object": "realtime.item",
                "type": "message",
                "role": "assistant",
                "status": "in_progress",
                "content": [part],
            }
        )
        self.begun = False
        self.done = False
        self.audio_ms = 0.0
        self._text = ""
        self._previous_item_id: str | None = None
        self._input_tokens = (0, 0)
        send({"type": "response.created", "response": self._wire("in_progress", None)})

    @property
    def text(self) -> str:
        """What was said so far."""
        return self._text.strip()

    def begin(self, context: Sequence[Item], instructions: str, previous_item_id: str | None) -> None:
        """Announce the item."""
        self.begun = True
        texts = sum(len(item.words.split()) for item in context) + len(instructions.split())
        heard_ms = sum(item.audio_ms for item in context)
        self._input_tokens = (texts, int(heard_ms * INPUT_TOKENS_PER_S / 1000))
        empty = {**self.item.wire, "content": []}
        self._send_part("response.output_item.added", output_index=0, item=empty)
        self._previous_item_id = previous_item_id
        if self.conversation_id:
            self._send_item("added", empty)
        self._send_content("response.content_part.added", part=self._part(""))

    def say(self, words: str, audio: bytes) -> bool:
        """One chunk, of encoded audio or none; False when it would be more than `max_output_tokens`."""
        length_ms = duration_ms(audio, self.format) if audio else 0.0
        limit = self.settings["max_output_tokens"]
        if limit != "inf" and self._output_tokens(self._text + words, self.audio_ms + length_ms) > limit:
            return False
        self._text += words
        self.audio_ms += length_ms
        if not self.item.truncated:
            self._note(words, length_ms)
        if words:
            kind = "output_audio_transcript" if self.spoken else "output_text"
            self._send_content(f"response.{kind}.delta", delta=words)
        if audio:
            self._send_content("response.output_audio.delta", delta=base64.b64encode(audio).decode())
        return True

    def finish(self, status: str, details: Event | None, *, kept: bool) -> None:
        """Send all that closes it.

        Args:
            kept: its item is in the conversation.
        """
        self.done = True
        self.item.wire["status"] = "completed" if status == "completed" else "incomplete"
        if self.begun:
            self._close_item(kept)
        self._send({"type": "response.done", "response": self._wire(status, details)})

    def _close_item(self, kept: bool) -> None:
        if self.spoken:
            self._send_content("response.output_audio.done")
            self._send_content("response.output_audio_transcript.done", transcript=self.text)
        else:
            self._send_content("response.output_text.done", text=self.text)
        self._send_content("response.content_part.done", part=self._part(self.text))
        self._send_part("response.output_item.done", output_index=0, item=self.item.wire)
        if kept:
            self._send_item("done", self.item.wire)

    def _note(self, words: str, length_ms: float) -> None:
        self.item.chunks.append((words, length_ms))
        self.item.audio_ms += length_ms
        part = self.item.wire["content"][0]
        part["transcript" if self.spoken else "text"] = self.text

    def _part(self, text: str) -> Event:
        return {"type": "audio", "transcript": text} if self.spoken else {"type": "text", "text": text}

    def _send_item(self, what: str, item: Event) -> None:
        place = {"previous_item_id": self._previous_item_id}
        self._send({"type": f"conversation.item.{what}", **place, "item": item})

    def _send_content(self, kind: str, **more: Any) -> None:
        self._send_part(kind, item_id=self.item.id, output_index=0, content_index=0, **more)

    def _send_part(self, kind: str, **more: Any) -> None:
        self._send({"type": kind, "response_id": self.id, **more})

    def _output_tokens(self, text: str, audio_ms: float) -> int:
        return len(text.split()) + int(audio_ms * OUTPUT_TOKENS_PER_S / 1000)

    def _wire(self, status: str, details: Event | None) -> Event:
        voice = self.settings["output"]["voice"]
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": details,
            "output": [self.item.wire] if self.begun else [],
            "conversation_id": self.conversation_id,
            "output_modalities": self.settings["output_modalities"],
            "max_output_tokens": self.settings["max_output_tokens"],
            "audio": {
                "output": {"format": self.format, "voice": voice if isinstance(voice, str) else voice["id"]}
            },
            "usage": self._usage() if self.done else None,
            "metadata": self.settings["metadata"],
        }

    def _usage(self) -> Event:
        texts, heard = self._input_tokens
        written, spoken = len(self._text.split()), int(self.audio_ms * OUTPUT_TOKENS_PER_S / 1000)
        return {
            "total_tokens": texts + heard + written + spoken,
            "input_tokens": texts + heard,
            "output_tokens": written + spoken,
            "input_token_details": {
                "text_tokens": texts,
                "audio_tokens": heard,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": written, "audio_tokens": spoken},
        }

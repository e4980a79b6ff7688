"""What a client may send to OpenAI's GA Realtime API, field by field; anything else is a `Violation`. Core.

The codes and texts are those of the real server as far as issues quote them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

MAX_APPEND_BYTES = 15 * 2**20
PCM_RATE_HZ = 24_000

Rule = Callable[[Any, str], None]


class Violation(Exception):
    """Becomes an `error` event."""

    def __init__(self, code: str | None, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def _type_error(value: Any, path: str, expected: str) -> Violation:
    names: Mapping[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    got = names.get(type(value), type(value).__name__)
    return Violation(
        "invalid_type", f"Invalid type for '{path}': expected {expected}, but got {got} instead.", path
    )


def text(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise _type_error(value, path, "a string")


def boolean(value: Any, path: str) -> None:
    if not isinstance(value, bool):
        raise _type_error(value, path, "a boolean")


def number(low: float, high: float, *, whole: bool = False) -> Rule:
    def check(value: Any, path: str) -> None:
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _type_error(value, path, "an integer" if whole else "a decimal")
        if not low <= value <= high:
            kind, side = "integer" if whole else "decimal", "below_min" if value < low else "above_max"
            bound = f">= {low}" if value < low else f"<= {high}"
            raise Violation(
                f"{kind}_{side}_value",
                f"Invalid '{path}': {kind} {side.replace('_', ' ')} value. Expected a value {bound}, "
                f"but got {value} instead.",
                path,
            )

    return check


def one_of(*allowed: str) -> Rule:
    def check(value: Any, path: str) -> None:
        text(value, path)
        if value not in allowed:
            names = ", ".join(f"'{name}'" for name in allowed)
            raise Violation(
                "invalid_value", f"Invalid value: '{value}'. Supported values are: {names}.", path
            )

    return check


def array(entry: Rule, most: int = 10_000) -> Rule:
    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise _type_error(value, path, "an array of objects")
        if len(value) > most:
            raise Violation("array_above_max_length", f"Invalid '{path}': array too long.", path)
        for index, each in enumerate(value):
            entry(each, f"{path}[{index}]")

    return check


def obj(fields: Mapping[str, Rule], *required: str) -> Rule:
    """An object with these fields and no others."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _type_error(value, path, "an object")
        prefix = f"{path}." if path else ""
        for name in required:
            if name not in value:
                raise Violation(
                    "missing_required_parameter",
                    f"Missing required parameter: '{prefix}{name}'.",
                    prefix + name,
                )
        for name, each in value.items():
            if name not in fields:
                raise Violation("unknown_parameter", f"Unknown parameter: '{prefix}{name}'.", prefix + name)
            fields[name](each, prefix + name)

    return check


def by_type(kinds: Mapping[str, Rule], key: str = "type") -> Rule:
    """An object whose field `key` says which rule it has to follow."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _type_error(value, path, "an object")
        name = f"{path}.{key}" if path else key
        if key not in value:
            raise Violation("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        one_of(*kinds)(value[key], name)
        kinds[value[key]](value, path)

    return check


def either(*rules: Rule) -> Rule:
    """The last rule's complaint is the one that is told."""

    def check(value: Any, path: str) -> None:
        for rule in rules[:-1]:
            try:
                return rule(value, path)
            except Violation:
                continue
        rules[-1](value, path)

    return check


def nullable(rule: Rule) -> Rule:
    """The few fields where null means off."""
    return lambda value, path: None if value is None else rule(value, path)


def anything(value: Any, path: str) -> None:
    """Left to the one who uses it."""


def json_schema(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise _type_error(value, path, "an object")


def base64_audio(value: Any, path: str) -> None:
    text(value, path)
    try:
        length = len(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        length = MAX_APPEND_BYTES + 1
    if length > MAX_APPEND_BYTES:
        raise Violation(
            "invalid_value",
            f"Invalid '{path}'. Expected base64-encoded audio bytes but got an invalid value.",
            path,
        )


def metadata(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise _type_error(value, path, "an object")
    if len(value) > 16:
        raise Violation("object_above_max_properties", f"Invalid '{path}': too many properties.", path)
    for name, each in value.items():
        text(each, f"{path}.{name}")


def _pcm_rate(value: Any, path: str) -> None:
    if value != PCM_RATE_HZ or isinstance(value, bool):
        raise Violation("invalid_value", f"Invalid value: '{value}'. Supported values are: 24000.", path)


KIND = {"type": text}
FORMAT = by_type(
    {
        "audio/pcm": obj({**KIND, "rate": _pcm_rate}, "rate"),
        "audio/pcmu": obj(KIND),
        "audio/pcma": obj(KIND),
    }
)
TURN_SWITCHES: dict[str, Rule] = {"create_response": boolean, "interrupt_response": boolean}
TURN_DETECTION = by_type(
    {
        "server_vad": obj(
            {
                **KIND,
                **TURN_SWITCHES,
                "threshold": number(0, 1),
                "prefix_padding_ms": number(0, 10_000, whole=True),
                "silence_duration_ms": number(0, 10_000, whole=True),
                "idle_timeout_ms": nullable(number(5000, 30_000, whole=True)),
            }
        ),
        "semantic_vad": obj({**KIND, **TURN_SWITCHES, "eagerness": one_of("low", "medium", "high", "auto")}),
    }
)
EFFORT = obj({"effort": one_of("minimal", "low", "medium", "high", "xhigh")})
VOICE = either(
    obj({"id": text}, "id"),
    one_of("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"),
)
MODALITIES = array(one_of("audio", "text"), most=1)
MAX_TOKENS = either(number(1, 4096, whole=True), one_of("inf"))
TOOL = by_type(
    {
        "function": obj(
            {**KIND, "name": text, "description": text, "parameters": json_schema, "strict": boolean}, "name"
        )
    }
)
TOOL_CHOICE = either(obj({**KIND, "name": text}, "type", "name"), one_of("auto", "none", "required"))


def _keyword(value: Any, path: str) -> None:
    text(value, path)
    if any(sign in value for sign in "<>\r\n"):
        raise Violation("invalid_value", f"Invalid value: '{path}' must be one line without < and >.", path)


def _transcription(value: Any, path: str) -> None:
    obj(
        {
            "model": text,
            "language": text,
            "languages": array(text),
            "keywords": array(_keyword),
            "prompt": text,
            "delay": one_of("minimal", "low", "medium", "high", "xhigh"),
        },
        "model",
    )(value, path)
    if "language" in value and ("languages" in value or "keywords" in value):
        raise Violation(
            "invalid_value", f"'{path}.language' excludes languages and keywords.", f"{path}.language"
        )
    newer = value["model"] in ("gpt-transcribe", "gpt-live-transcribe")
    wrong = "language" if newer else "languages" if "languages" in value else "keywords"
    if wrong in value:
        raise Violation("unknown_parameter", f"Unknown parameter: '{path}.{wrong}'.", f"{path}.{wrong}")


SESSION = by_type(
    {
        "realtime": obj(
            {
                **KIND,
                "model": text,
                "output_modalities": MODALITIES,
                "instructions": text,
                "audio": obj(
                    {
                        "input": obj(
                            {
                                "format": FORMAT,
                                "noise_reduction": nullable(
                                    obj(
                                        {"type": one_of("near_field", "far_field"), "strength": number(0, 1)},
                                        "type",
                                    )
                                ),
                                "transcription": nullable(_transcription),
                                "turn_detection": nullable(TURN_DETECTION),
                            }
                        ),
                        "output": obj({"format": FORMAT, "voice": VOICE, "speed": number(0.25, 1.5)}),
                    }
                ),
                "tools": array(TOOL),
                "tool_choice": TOOL_CHOICE,
                "parallel_tool_calls": boolean,
                "reasoning": EFFORT,
                "max_output_tokens": MAX_TOKENS,
                "truncation": either(
                    obj(
                        {
                            "type": one_of("retention_ratio"),
                            "retention_ratio": number(0, 1),
                            "token_limits": obj({"post_instructions": number(0, 1_000_000, whole=True)}),
                        },
                        "type",
                        "retention_ratio",
                    ),
                    one_of("auto", "disabled"),
                ),
                "include": array(one_of("item.input_audio_transcription.logprobs")),
                "tracing": nullable(
                    either(
                        obj({"workflow_name": text, "group_id": text, "metadata": json_schema}),
                        one_of("auto"),
                    )
                ),
            }
        )
    }
)

CONTENT_TEXT = obj({**KIND, "text": text}, "text")
ITEM_HEAD: dict[str, Rule] = {
    **KIND,
    "id": text,
    "object": one_of("realtime.item"),
    "status": one_of("completed", "incomplete", "in_progress"),
}
MESSAGE_CONTENT: dict[str, Rule] = {
    "system": array(by_type({"input_text": CONTENT_TEXT})),
    "user": array(
        by_type(
            {
                "input_text": CONTENT_TEXT,
                "input_audio": obj({**KIND, "audio": base64_audio, "transcript": text}, "audio"),
                "input_image": obj(
                    {**KIND, "image_url": text, "detail": one_of("auto", "low", "high")}, "image_url"
                ),
            }
        )
    ),
    "assistant": array(by_type({"output_text": CONTENT_TEXT})),
}
ITEMS: dict[str, Rule] = {
    "message": by_type(
        {
            role: obj({**ITEM_HEAD, "role": text, "content": content}, "role", "content")
            for role, content in MESSAGE_CONTENT.items()
        },
        "role",
    ),
    "function_call": obj(
        {**ITEM_HEAD, "name": text, "call_id": text, "arguments": text}, "name", "arguments"
    ),
    "function_call_output": obj({**ITEM_HEAD, "call_id": text, "output": text}, "call_id", "output"),
}
REFERENCE = {"item_reference": obj({**KIND, "id": text}, "id")}

RESPONSE = obj(
    {
        "instructions": text,
        "output_modalities": MODALITIES,
        "audio": obj({"output": obj({"format": FORMAT, "voice": VOICE})}),
        "tools": array(TOOL),
        "tool_choice": TOOL_CHOICE,
        "max_output_tokens": MAX_TOKENS,
        "conversation": one_of("auto", "none"),
        "metadata": metadata,
        "input": array(by_type({**ITEMS, **REFERENCE})),
        "reasoning": EFFORT,
        "parallel_tool_calls": boolean,
    }
)

HEAD: dict[str, Rule] = {**KIND, "event_id": text}
CLIENT_EVENT = by_type(
    {
        "session.update": obj({**HEAD, "session": SESSION}, "session"),
        "input_audio_buffer.append": obj({**HEAD, "audio": base64_audio}, "audio"),
        "input_audio_buffer.commit": obj(HEAD),
        "input_audio_buffer.clear": obj(HEAD),
        "conversation.item.create": obj({**HEAD, "item": by_type(ITEMS), "previous_item_id": text}, "item"),
        "conversation.item.truncate": obj(
            {
                **HEAD,
                "item_id": text,
                "content_index": number(0, 1000, whole=True),
                "audio_end_ms": number(0, 10**9, whole=True),
            },
            "item_id",
            "content_index",
            "audio_end_ms",
        ),
        "conversation.item.delete": obj({**HEAD, "item_id": text}, "item_id"),
        "conversation.item.retrieve": obj({**HEAD, "item_id": text}, "item_id"),
        "response.create": obj({**HEAD, "response": RESPONSE}),
        "response.cancel": obj({**HEAD, "response_id": text}),
    }
)


def check_client_event(event: Any) -> None:
    """Raises `Violation` for the first thing that is wrong."""
    CLIENT_EVENT(event, "")

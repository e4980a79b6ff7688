"""A Realtime session's settings: what a client may ask for, checked like OpenAI does, and what is then in force. Core.

Every documented field is checked and echoed, also those that mean nothing to this backend (tools, tracing, …); what
is unknown is refused, the beta's flat fields among it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Event = dict[str, Any]
Check = Callable[[Any, str], Any]
"""Takes a value and its path; returns the value with defaults filled in."""

PCM_RATE_HZ = 24_000
MAX_TEXT_CHARS = 65_536
MAX_METADATA = 16
MODEL = "system-message-answers"
DEFAULT_FORMAT = {"type": "audio/pcm", "rate": PCM_RATE_HZ}


class Invalid(Exception):
    """A client event that can't be obeyed; becomes an `error` event."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


# --- checks ------------------------------------------------------------------------------------------


def _wrong_type(path: str, wanted: str, value: object) -> Invalid:
    names = {type(None): "null", bool: "a boolean", int: "an integer", float: "a decimal"}
    names |= {str: "a string", list: "an array", dict: "an object"}
    got = names[type(value)]
    return Invalid(
        "invalid_type", f"Invalid type for '{path}': expected {wanted}, but got {got} instead.", path
    )


def text(value: Any, path: str) -> Any:
    """A string of a bounded length."""
    if not isinstance(value, str):
        raise _wrong_type(path, "a string", value)
    if len(value) > MAX_TEXT_CHARS:
        message = f"Invalid '{path}': string too long. Expected at most {MAX_TEXT_CHARS} characters."
        raise Invalid("string_above_max_length", message, path)
    return value


def flag(value: Any, path: str) -> Any:
    """A boolean; no null."""
    if not isinstance(value, bool):
        raise _wrong_type(path, "a boolean", value)
    return value


def number(low: float, high: float, *, whole: bool = False) -> Check:
    """A number in a range."""

    def check(value: Any, path: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise _wrong_type(path, "an integer" if whole else "a number", value)
        if not low <= value <= high:
            message = f"Invalid '{path}': expected a value from {low} to {high}, but got {value} instead."
            raise Invalid("invalid_value", message, path)
        return value

    return check


def choice(*values: str) -> Check:
    """One of some strings."""

    def check(value: Any, path: str) -> Any:
        if value not in values:
            raise Invalid("invalid_value", unsupported(value, values), path)
        return value

    return check


def unsupported(value: object, values: tuple[str, ...]) -> str:
    """OpenAI's words for a value that is not in the list."""
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"Invalid value: '{shown[:80]}'. Supported values are: {', '.join(map(repr, values))}."


def optional(check: Check) -> Check:
    """Null is allowed and turns the thing off."""
    return lambda value, path: None if value is None else check(value, path)


def either(kind: type, first: Check, otherwise: Check) -> Check:
    """`first` for values of a type, `otherwise` for all others."""
    return lambda value, path: (first if isinstance(value, kind) else otherwise)(value, path)


def array(check: Check, longest: int = 256) -> Check:
    """A list of things of one sort."""

    def check_all(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise _wrong_type(path, "an array", value)
        if len(value) > longest:
            message = f"Invalid '{path}': expected at most {longest} elements."
            raise Invalid("array_above_max_length", message, path)
        return [check(element, f"{path}[{i}]") for i, element in enumerate(value)]

    return check_all


def fields(
    known: Mapping[str, Check], required: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None
) -> Check:
    """An object with these fields and no others."""

    def check(value: Any, path: str) -> Any:
        given = mapping(value, path)
        for name in given:
            if name not in known:
                where = inside(path, name[:80])
                raise Invalid("unknown_parameter", f"Unknown parameter: '{where}'.", where)
        for name in required:
            if name not in given:
                raise missing(inside(path, name))
        checked = {name: known[name](element, inside(path, name)) for name, element in given.items()}
        return {**(defaults or {}), **checked}

    return check


def variants(**kinds: Check) -> Check:
    """An object whose `type` says which fields it has; `audio_…` stands for `audio/…`."""
    by_name = {
        name.replace("_", "/") if name.startswith("audio_") else name: known for name, known in kinds.items()
    }

    def check(value: Any, path: str) -> Any:
        kind = mapping(value, path).get("type")
        if kind is None:
            raise missing(inside(path, "type"))
        if not isinstance(kind, str) or kind not in by_name:
            raise Invalid("invalid_value", unsupported(kind, tuple(by_name)), f"{path}.type")
        return by_name[kind](value, path)

    return check


def inside(path: str, name: str) -> str:
    """The path of a field; that of the event itself is empty."""
    return f"{path}.{name}" if path else name


def missing(where: str) -> Invalid:
    """A field that must be there is not."""
    return Invalid("missing_required_parameter", f"Missing required parameter: '{where}'.", where)


def mapping(value: Any, path: str) -> dict[str, Any]:
    """An object of any fields."""
    if not isinstance(value, dict):
        raise _wrong_type(path, "an object", value)
    return value


# --- what may be asked for ---------------------------------------------------------------------------

_SWITCHES: dict[str, Check] = {"type": text, "create_response": flag, "interrupt_response": flag}
_RESPONDING = {"create_response": True, "interrupt_response": True}
_TURN_DETECTION = variants(
    server_vad=fields(
        _SWITCHES
        | {
            "threshold": number(0, 1),
            "prefix_padding_ms": number(0, 5000, whole=True),
            "silence_duration_ms": number(20, 10_000, whole=True),
            "idle_timeout_ms": optional(number(5000, 30_000, whole=True)),
        },
        defaults={"threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
        | {"idle_timeout_ms": None}
        | _RESPONDING,
    ),
    semantic_vad=fields(
        _SWITCHES | {"eagerness": choice("low", "medium", "high", "auto")},
        defaults={"eagerness": "auto"} | _RESPONDING,
    ),
)
_FORMAT = variants(
    audio_pcm=fields(
        {"type": text, "rate": number(PCM_RATE_HZ, PCM_RATE_HZ, whole=True)}, required=("rate",)
    ),
    audio_pcmu=fields({"type": text}),
    audio_pcma=fields({"type": text}),
)
_VOICE = either(str, text, fields({"id": text}, required=("id",)))
_TRANSCRIPTION_FIELDS: dict[str, Check] = {
    "model": text,
    "language": text,
    "languages": array(text),
    "keywords": array(text),
    "prompt": text,
    "delay": choice("minimal", "low", "medium", "high", "xhigh"),
}
_EFFORT = choice("none", "minimal", "low", "medium", "high", "xhigh")
_TOKENS = either(str, choice("inf"), number(1, 4096, whole=True))
_GENERATION: dict[str, Check] = {
    "instructions": text,
    "max_output_tokens": _TOKENS,
    "parallel_tool_calls": flag,
    "prompt": optional(mapping),
    "reasoning": optional(fields({"effort": _EFFORT})),
    "tool_choice": either(str, choice("auto", "none", "required"), mapping),
    "tools": array(variants(function=mapping, mcp=mapping)),
}


def _modalities(value: Any, path: str) -> Any:
    if value not in (["audio"], ["text"]):
        message = f"Invalid modalities: {json.dumps(value)[:80]}. Supported combinations are: ['text'] and ['audio']."
        raise Invalid("invalid_value", message, path)
    return value


def _transcription(value: Any, path: str) -> Any:
    checked = fields(_TRANSCRIPTION_FIELDS)(value, path)
    if checked.get("language") and checked.get("languages"):
        raise Invalid("invalid_value", f"Give '{path}.language' or '{path}.languages', not both.", path)
    return checked


def _metadata(value: Any, path: str) -> Any:
    if len(mapping(value, path)) > MAX_METADATA:
        raise Invalid("invalid_value", f"Invalid '{path}': at most {MAX_METADATA} pairs.", path)
    return {name: text(element, f"{path}.{name}") for name, element in value.items()}


_RETENTION = fields(
    {"type": choice("retention_ratio"), "retention_ratio": number(0, 1), "token_limits": optional(mapping)},
    required=("type", "retention_ratio"),
)
_SESSION = fields(
    _GENERATION
    | {
        "type": choice("realtime"),
        "model": text,
        "output_modalities": _modalities,
        "include": optional(array(choice("item.input_audio_transcription.logprobs"))),
        "tracing": optional(either(str, choice("auto"), mapping)),
        "truncation": either(str, choice("auto", "disabled"), _RETENTION),
        "audio": fields(
            {
                "input": fields(
                    {
                        "format": _FORMAT,
                        "turn_detection": optional(_TURN_DETECTION),
                        "transcription": optional(_transcription),
                        "noise_reduction": optional(
                            fields({"type": choice("near_field", "far_field"), "strength": number(0, 100)})
                        ),
                    }
                ),
                "output": fields({"format": _FORMAT, "voice": _VOICE, "speed": number(0.25, 1.5)}),
            }
        ),
    },
    required=("type",),
)
_RESPONSE = fields(
    _GENERATION
    | {
        "output_modalities": _modalities,
        "audio": fields({"output": fields({"format": _FORMAT, "voice": _VOICE})}),
        "conversation": choice("auto", "none"),
        "input": array(mapping),
        "metadata": optional(_metadata),
    }
)


def new_session(session_id: str, model: str, expires_at: int) -> Event:
    """The session before any update."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model or MODEL,
        "expires_at": expires_at,
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "prompt": None,
        "tracing": None,
        "include": None,
        "audio": {
            "input": {
                "format": DEFAULT_FORMAT,
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": _TURN_DETECTION({"type": "server_vad"}, ""),
            },
            "output": {"format": DEFAULT_FORMAT, "voice": "alloy", "speed": 1.0},
        },
    }


def updated(session: Event, update: Any, *, spoke: bool, knows: Callable[[str], bool]) -> Event:
    """`session` after `session.update`: what is present replaces what was, nested objects as a whole.

    Args:
        spoke: audio was produced, so the voice stays.
        knows: whether a language can be understood.

    Raises:
        Invalid: nothing of the update applies then.
    """
    checked: Event = _SESSION(update, "session")
    audio = checked.pop("audio", {})
    if checked.get("model", session["model"]) != session["model"]:
        raise Invalid("invalid_value", "The model of a session can't be changed.", "session.model")
    for language in languages_of(audio.get("input", {}).get("transcription")):
        if not knows(language):
            message = f"Invalid value: '{language[:20]}' is not a language this server understands."
            raise Invalid("invalid_value", message, "session.audio.input.transcription.language")
    sides = {side: now | audio.get(side, {}) for side, now in session["audio"].items()}
    result: Event = session | checked | {"audio": sides}
    if spoke and result["audio"]["output"]["voice"] != session["audio"]["output"]["voice"]:
        message = "Cannot update a conversation's voice if assistant audio is present."
        raise Invalid("cannot_update_voice", message, "session.audio.output.voice")
    return result


def languages_of(transcription: Event | None) -> list[str]:
    """ISO codes that the speech may be in; empty when the client does not say."""
    hint = transcription or {}
    return list(hint.get("languages") or filter(None, [hint.get("language")]))


def response_settings(session: Event, asked: Any) -> Event:
    """The settings of one response: the session's, changed by what `response.create` names.

    `own_instructions` holds the instructions of the event itself, `input` is absent unless given.

    Raises:
        Invalid: a field is wrong.
    """
    checked: Event = _RESPONSE({} if asked is None else asked, "response")
    output = checked.pop("audio", {}).get("output", {})
    settings: Event = {
        name: session[name] for name in ("instructions", "output_modalities", "max_output_tokens")
    } | {"conversation": "auto", "metadata": None, "own_instructions": checked.get("instructions", "")}
    settings |= checked
    return settings | {"output": session["audio"]["output"] | output}

"""The API in OpenAPI 3.1. Core, data only."""

from __future__ import annotations

from typing import Any

from ari_app import __version__

JSON = "application/json"
_CALL = {
    "name": "call",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Call id",
}
_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Name of the recording, or its call id",
}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_ERROR = {"$ref": "#/components/schemas/Error"}


def _query(name: str, what: str, most: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1, "maximum": most}
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": what}


def _answer(what: str, schema: dict[str, Any], media: str = JSON) -> dict[str, Any]:
    return {"description": what, "content": {media: {"schema": schema}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _errors(*codes: int) -> dict[str, Any]:
    words = {
        400: "The request is not as described",
        401: "No valid token",
        404: "No such call, or it can't do that",
        422: "The number may not be called",
        429: "A limit is reached",
        502: "The text can't be spoken",
        503: "A disk does not answer or can't be written",
    }
    return {str(code): _answer(words[code], _ERROR) for code in (401, *codes)}


def _operation(
    name: str,
    summary: str,
    *,
    ok: dict[str, Any],
    status: int = 200,
    errors: tuple[int, ...] = (),
    parameters: tuple[dict[str, Any], ...] = (),
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {str(status): ok, **_errors(*errors)},
    }
    if parameters:
        operation["parameters"] = list(parameters)
    if body:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": {**body, "additionalProperties": False}}},
        }
    return operation


_OK = _answer("Done", _object(ok={"type": "boolean"}))
_TEXT = {"type": "string", "minLength": 1, "maxLength": 1000, "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"}


_ACTIONS: tuple[tuple[str, str, str, dict[str, Any] | None, tuple[int, ...]], ...] = (
    ("hangup", "hangUp", "End it", None, ()),
    (
        "say",
        "say",
        "Say a sentence in the bot's name, after what is being said",
        _object(text=_TEXT),
        (429, 502),
    ),
    (
        "transfer",
        "transfer",
        "Give the caller back to the dialplan, with the extension in ARI_APP_TRANSFER",
        _object(extension={"type": "string", "pattern": r"^\+?[0-9*#]{1,32}$"}),
        (),
    ),
    (
        "recording",
        "pauseRecording",
        "Keep nothing from now on, or go on",
        _object(paused={"type": "boolean"}),
        (),
    ),
)

_SUMMARY, _LIST = {"$ref": "#/components/schemas/Call"}, {"type": "array"}
PATHS: dict[str, Any] = {
    "/api/calls": {
        "get": _operation(
            "listCalls",
            "Calls that go on, and the last ones that are over",
            ok=_answer("The calls, newest first", _object(calls={**_LIST, "items": _SUMMARY})),
        ),
        "post": _operation(
            "placeCall",
            "Call a number, within the limits of the settings",
            ok=_answer("It is being dialed", _object(call={"type": "string"})),
            status=201,
            errors=(400, 422, 429, 503),
            body=_object(number=_TEXT),
        ),
    },
    "/api/calls/{call}": {
        "get": _operation(
            "showCall",
            "One call with what was said and how long it took",
            ok=_answer("The call", _SUMMARY),
            errors=(404,),
            parameters=(_CALL,),
        )
    },
    **{
        f"/api/calls/{{call}}/{action}": {
            "post": _operation(
                name,
                what,
                ok=_OK,
                errors=(400, 404, *more),
                parameters=(_CALL,),
                body=body,
            )
        }
        for action, name, what, body, more in _ACTIONS
    },
    "/api/events": {
        "get": _operation(
            "followCalls",
            "What happens, as server-sent events: JSON objects with a `type` of calls, call, event, levels "
            "or refused",
            ok=_answer("The stream", {"type": "string"}, "text/event-stream"),
            errors=(429,),
        )
    },
    "/api/recordings": {
        "get": _operation(
            "listRecordings",
            "The latest recorded calls",
            ok=_answer("Newest first", _object(recordings={**_LIST, "items": {"type": "object"}})),
            errors=(400, 503),
            parameters=(_query("limit", "How many", 200),),
        )
    },
    "/api/recordings/{name}": {
        "get": _operation(
            "showRecording",
            "The event log of one",
            ok=_answer(
                "Its events",
                _object(name={"type": "string"}, events={**_LIST, "items": {"type": "object"}}),
            ),
            errors=(404, 503),
            parameters=(_NAME,),
        )
    },
    "/api/recordings/{name}/peaks": {
        "get": _operation(
            "showSound",
            "How loud its sides are, for a picture of it: of each column the loudest sample, 0 to 1",
            ok=_answer(
                "The columns",
                _object(seconds={"type": "number"}, caller=_NUMBERS, bot=_NUMBERS),
            ),
            errors=(400, 404, 503),
            parameters=(_NAME, _query("columns", "How many, of a sound that is long enough", 4000)),
        )
    },
    "/api/recordings/{name}/audio": {
        "get": _operation(
            "playRecording",
            "Its sound: left the caller, right the bot",
            ok=_answer("A WAV file", {"type": "string", "format": "binary"}, "audio/wav"),
            errors=(404, 503),
            parameters=(_NAME,),
        )
    },
}
COMPONENTS: dict[str, Any] = {
    "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    "schemas": {
        "Error": _object(error={"type": "string"}),
        "Call": {
            **_object(
                call={"type": "string"},
                direction={"enum": ["inbound", "outbound"]},
                stage={"type": "string"},
                started={"type": "string", "format": "date-time"},
                seconds={"type": "number"},
                recording={"enum": ["off", "on", "paused", "failed", "kept"]},
                ending={"type": "string"},
                line={"type": "object"},
                cost_usd={"type": ["number", "null"]},
                cost_is_partial={"type": "boolean"},
            ),
        },
    },
}


def description() -> dict[str, Any]:
    """The document that GET /api/openapi.json serves."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ari_app",
            "version": __version__,
            "description": "Watch and steer the calls of a phone agent.",
        },
        "security": [{"token": []}],
        "paths": PATHS,
        "components": COMPONENTS,
    }

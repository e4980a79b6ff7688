"""What Asterisk's refusals mean: HTTP status and body to our exceptions, misleading ones put right. Core."""

from __future__ import annotations

import json
import re

from ari_app.errors import AriConflict, AriError, AriNotFound, AriUnauthorized, AriUnreachable

BAD_LOGIN = "Asterisk refused the login: set ARI_USERNAME and ARI_PASSWORD to a user of its ari.conf"
READ_ONLY = "the ARI user may only read: set read_only = no for it in ari.conf"
NO_ARI = (
    "Asterisk is still starting, or has no ARI: see that ari.conf says enabled = yes and ARI_URL has no path"
)
NOT_READY = "Asterisk is starting or shutting down"
NO_ENDPOINT = (
    "Asterisk has no such endpoint, or cannot reach it now: check DIAL_ENDPOINT, "
    "and that the trunk or phone is registered"
)
NO_VARIABLE = "Provided variable was not found"
"""Asterisk's own words, where a channel has no such variable or there is no such function."""
NO_REASON = "Asterisk gives no reason; its log may"

LONGEST_MESSAGE = 200


def ari_error(attempted: str, status: int, body: str) -> AriError:
    """The exception for a reply with an error status.

    Args:
        attempted: what we tried to do, for the sentence "could not ...".
        status: HTTP status, 400 or higher.
        body: JSON like {"message": ...} or {"error": ...}; HTML where Asterisk's HTTP server answers itself.
    """
    message = _message(body)
    if status == 401:
        return AriUnauthorized(attempted, status, BAD_LOGIN)
    if status == 403:
        return AriUnauthorized(attempted, status, READ_ONLY)
    if status == 404 and not message:
        # The HTTP server is up before ARI is: its 404 does not mean that a channel is gone.
        return AriUnreachable(attempted, status, NO_ARI)
    if status == 503:
        return AriUnreachable(attempted, status, NOT_READY)
    if status == 404 or (status == 400 and message == "Channel not found"):
        return AriNotFound(attempted, status, message)
    if message == "Allocation failed":
        return AriError(attempted, status, NO_ENDPOINT)
    if status in {409, 412, 422}:
        return AriConflict(attempted, status, message or NO_REASON)
    if status == 500 and (not message or message.startswith("An internal error")):
        return AriError(attempted, status, NO_REASON)
    return AriError(attempted, status, message or NO_REASON)


def _message(body: str) -> str:
    """Asterisk's own words, one line; empty when the body is not ARI's."""
    try:
        holder = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(holder, dict):
        return ""
    words = holder.get("message") or holder.get("error") or ""
    return re.sub(r"\s+", " ", words)[:LONGEST_MESSAGE] if isinstance(words, str) else ""

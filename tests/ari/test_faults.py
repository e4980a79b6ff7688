"""Asterisk's refusals as our exceptions."""

from __future__ import annotations

import pytest

from ari_app.ari.faults import ari_error
from ari_app.errors import AriConflict, AriError, AriNotFound, AriUnauthorized, AriUnreachable


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, '{"message":"Authentication required"}', AriUnauthorized, "ARI_USERNAME and ARI_PASSWORD"),
        (403, '{"message":"Write access denied"}', AriUnauthorized, "read_only = no"),
        (404, "<html>Not Found</html>", AriUnreachable, "still starting"),
        (404, '{"message":"Channel not found"}', AriNotFound, "Channel not found"),
        (400, '{"message":"Channel not found"}', AriNotFound, "Channel not found"),
        (400, '{"message":"Application or extension must be specified"}', AriError, "must be specified"),
        (409, '{"message":"Channel not in Stasis application"}', AriConflict, "not in Stasis"),
        (412, '{"message":"Channel in invalid state"}', AriConflict, "invalid state"),
        (422, "", AriConflict, "gives no reason"),
        (500, '{"error":"Allocation failed"}', AriError, "check DIAL_ENDPOINT"),
        (500, '{"message":"An internal error prevented this request"}', AriError, "gives no reason"),
        (503, "<html>Service Unavailable</html>", AriUnreachable, "starting or shutting down"),
        (503, '{"message":"Asterisk not booted"}', AriUnreachable, "starting or shutting down"),
        (500, '{"message": ["no", "words"]}', AriError, "gives no reason"),
        (500, "[" * 100_000, AriError, "gives no reason"),
        (500, '{"message": "two\\nlines"}', AriError, "two lines"),
    ],
)
def test_table(status: int, body: str, kind: type[AriError], words: str) -> None:
    error = ari_error("hang up channel 1", status, body)
    assert type(error) is kind
    assert str(error).startswith(f"could not hang up channel 1 (HTTP {status}): ")
    assert words in str(error)
    assert error.status == status


def test_long_words_are_cut() -> None:
    assert len(ari_error("try", 500, '{"message": "' + "x" * 10_000 + '"}').message) == 200

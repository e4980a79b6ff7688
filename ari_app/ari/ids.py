"""The ids of the Asterisk objects we create: chosen before the request, with our prefix, of one length. Core.

    ari_app-5f0c21aa-9d3b61c07e42-m
            tag      call         kind

The tag names the instance (a server keeps its tag over restarts), so that what a dead one left can be swept.
One length matters: Asterisk takes a new channel id for a duplicate when a living one begins with it, without
regard to case (get_by_uniqueid in main/channelstorage_ao2_legacy.c).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

TAG_LENGTH = 8
CALL_LENGTH = 12

_FORM = re.compile(rf"ari_app-([0-9a-f]{{{TAG_LENGTH}}})-([0-9a-f]{{{CALL_LENGTH}}})-([cmb])")


class Kind(StrEnum):
    """What an object is to its call."""

    CALLEE = "c"
    """The channel that we originate."""
    MEDIA = "m"
    """The ExternalMedia channel."""
    BRIDGE = "b"


@dataclass(frozen=True, slots=True)
class ObjectId:
    """The parts of an object id: `tag` of 8 and `call_id` of 12 lower-case hex digits.

    Raises:
        ValueError: a part has another form.
    """

    tag: str
    call_id: str
    kind: Kind

    def __post_init__(self) -> None:
        if not _FORM.fullmatch(str(self)):
            raise ValueError(f"not the parts of an object id: tag {self.tag!r}, call {self.call_id!r}")

    def __str__(self) -> str:
        return f"ari_app-{self.tag}-{self.call_id}-{self.kind.value}"


def object_id(tag: str, call_id: str, kind: Kind) -> str:
    """The id of the call's object of that kind, as Asterisk gets it."""
    return str(ObjectId(tag, call_id, kind))


def parse_object_id(text: str) -> ObjectId | None:
    """The parts of an id of ours; None for the id of anybody else's object."""
    match = _FORM.fullmatch(text)
    return ObjectId(match[1], match[2], Kind(match[3])) if match else None


def server_tag(app: str, ari_url: str) -> str:
    """The tag of the server of a Stasis application: the same after every restart."""
    parts = urlsplit(ari_url)
    place = f"{app}@{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}".lower()
    return hashlib.sha256(place.encode()).hexdigest()[:TAG_LENGTH]

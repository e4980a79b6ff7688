"""Which Debian mirrors the host's apt sources name, as deb822 or one line each. Shell: reads files.

See sources.list(5). Only lists that carry the component `main` of a Debian suite count, so third-party
repositories fall out; what is left is proven by Debian's signature when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SUITE = re.compile(
    r"(buster|bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)"
    r"(-updates|-backports|-proposed-updates)?/?"
)
_URI = re.compile(r"(https?|mirror|mirror\+[a-z]+|tor|tor\+https?|file|copy):\S+")


@dataclass(frozen=True, slots=True)
class _Source:
    uri: str
    suite: str
    components: tuple[str, ...]


def debian_mirrors(folder: Path) -> list[str]:
    """Addresses of the Debian archive in `folder` (normally /etc/apt), each once, in file order."""
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    mirrors: dict[str, None] = {}
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:  # absent, or readable by root only
            continue
        read = {".sources": _deb822, ".list": _one_line}.get(file.suffix)
        for source in read(text) if read else ():
            if "main" in source.components and _SUITE.fullmatch(source.suite) and _URI.fullmatch(source.uri):
                mirrors[source.uri.rstrip("/")] = None
    return list(mirrors)


def _one_line(text: str) -> Iterator[_Source]:
    for line in text.splitlines():
        line = line.split("#", 1)[0]
        match = re.fullmatch(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s*(.*)", line)
        if match:
            yield _Source(match[1], match[2], tuple(match[3].split()))


def _deb822(text: str) -> Iterator[_Source]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, list[str]] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields.setdefault(name, []).extend(line.split())
            elif ":" in line:
                name, _, rest = line.partition(":")
                name = name.strip().lower()
                fields[name] = rest.split()
        if "deb" not in fields.get("types", []) or fields.get("enabled", ["yes"])[0].lower() in (
            "no",
            "false",
        ):
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield _Source(uri, suite, tuple(fields.get("components", [])))

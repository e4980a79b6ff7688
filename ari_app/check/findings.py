"""What was found: levels, the lines a person reads, the exit code. Core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How much a finding matters; `SKIPPED` could not be looked at, or concerns nothing that is used."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


EXIT_FAILED, EXIT_CONFIG, EXIT_ASTERISK = 1, 2, 3
"""As of the other commands: ours or the engines', a setting, Asterisk."""
_GRAVEST_FIRST = (EXIT_CONFIG, EXIT_ASTERISK, EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    level: Level
    text: str
    remedy: str = ""
    """What to do, without a full stop at its end; empty when there is nothing to do."""
    figures: Mapping[str, float | str] = field(default_factory=dict)
    """What was measured, for `--json`; units in the names."""
    exit_code: int = EXIT_FAILED
    """When this fails."""


def line(finding: Finding) -> str:
    """One line, in columns that stand under each other; nothing in it steers a terminal."""
    level = finding.level.upper() if finding.level is Level.FAILED else finding.level
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    text = f"{level:<8} {finding.subject:<15} {finding.text}{remedy}"
    return "".join(character if character.isprintable() else " " for character in text)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 unless something failed; then that of the failure nearest to the root."""
    failed = {finding.exit_code for finding in findings if finding.level is Level.FAILED}
    return next((code for code in _GRAVEST_FIRST if code in failed), 0)


def summary(findings: Sequence[Finding]) -> str:
    """The last line."""
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    failed = sum(finding.level is Level.FAILED for finding in findings)
    if not failed and not warnings:
        return "all is well"
    counted = f"{warnings} {'warning' if warnings == 1 else 'warnings'}"
    return f"{failed} failed, {counted}" if failed else f"nothing failed, {counted}"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The report for machines."""
    return {
        "exit_code": exit_code(findings),
        "findings": [
            {
                "subject": finding.subject,
                "level": finding.level.value,
                "text": finding.text,
                "remedy": finding.remedy,
                "figures": dict(finding.figures),
            }
            for finding in findings
        ],
    }

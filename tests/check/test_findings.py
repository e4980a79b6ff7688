"""How findings are shown, and the exit code."""

from __future__ import annotations

import pytest

from ari_app.check.findings import Finding, Level, as_json, exit_code, line, summary

OK = Finding("clock", Level.OK, "as Asterisk's")
SKIPPED = Finding("engines", Level.SKIPPED, "none")
WARNING = Finding("trunk", Level.WARNING, "it is offline", "plug it in")
OURS, SETTING, ASTERISK = (Finding("x", Level.FAILED, "it broke", exit_code=code) for code in (1, 2, 3))


def test_columns_stand_under_each_other_and_the_remedy_on_the_same_line() -> None:
    failed = Finding("speech-to-text", Level.FAILED, "no answer", "look there")
    assert line(OK) == "ok       clock           as Asterisk's"
    assert line(WARNING) == "warning  trunk           it is offline -> plug it in"
    assert line(failed) == "FAILED   speech-to-text  no answer -> look there"


def test_the_words_of_a_server_do_not_steer_the_terminal() -> None:
    shown = line(Finding("chat", Level.FAILED, "no\nway\x1b[2J\r\x07"))
    assert shown.isprintable() and "no way" in shown


@pytest.mark.parametrize(
    ("findings", "code", "said"),
    [
        ([OK, SKIPPED], 0, "all is well"),
        ([OK, WARNING], 0, "nothing failed, 1 warning"),
        ([WARNING, WARNING], 0, "nothing failed, 2 warnings"),
        ([OURS, OK], 1, "1 failed, 0 warnings"),
        ([ASTERISK, OURS, WARNING], 3, "2 failed, 1 warning"),
        ([ASTERISK, OURS, SETTING], 2, "3 failed, 0 warnings"),
    ],
)
def test_the_failure_nearest_to_the_root_decides(findings: list[Finding], code: int, said: str) -> None:
    assert exit_code(findings) == code
    assert summary(findings) == said


def test_the_report_for_machines() -> None:
    measured = Finding("rtp loop", Level.OK, "fine", figures={"delay_ms": 0.4})
    assert as_json([measured, ASTERISK]) == {
        "exit_code": 3,
        "findings": [
            {
                "subject": "rtp loop",
                "level": "ok",
                "text": "fine",
                "remedy": "",
                "figures": {"delay_ms": 0.4},
            },
            {"subject": "x", "level": "failed", "text": "it broke", "remedy": "", "figures": {}},
        ],
    }

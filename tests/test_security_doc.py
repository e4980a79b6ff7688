"""SECURITY.md claims what is tested: each test and file that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
CLAIMS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
FILES = sorted(set(re.findall(r"`((?:ari_app|asterisk-config|tests|scripts)/[\w./-]+\.(?:py|conf))`", TEXT)))


def test_it_names_many_tests() -> None:
    assert len(CLAIMS) > 60 and len(FILES) > 4


@pytest.mark.parametrize(("path", "name"), CLAIMS)
def test_each_claim_has_its_test(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    named = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in named


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).is_file(), target
    assert "SECURITY.md" in (ROOT / "README.md").read_text(encoding="utf-8")

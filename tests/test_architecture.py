"""The import rule, the purity of cores and the size budgets, read from the source's syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ari_app"

# Which of our packages and top modules each one may import; its own modules are always allowed.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "apart": set(),
    "event_loop": {"apart"},
    "texts": set(),
    "logs": {"texts"},
    "audio": set(),
    "parsers": {"errors", "guard"},
    "prices": set(),
    "models": set(),
    "phrases": set(),
    "settings": {"parsers", "models", "phrases"},
    "config": {"errors", "settings", "parsers", "models", "guard", "ari.streams"},
    "guard": set(),
    "ledger": {"errors", "guard"},
    "health": {"errors"},
    "ari": {"errors", "rtp.quality"},
    "rtp": {"errors", "audio", "dialog.ports"},
    "dialog": {"errors", "audio", "phrases", "prices"},
    "openai_api": {
        *("errors", "texts", "audio", "prices", "dialog.ports", "dialog.history", "dialog.turns"),
        *("dialog.phrasebook", "dialog.engines", "dialog.usage"),
    },
    "rehearsal": {"errors", "apart", "audio", "dialog.phrasebook", "dialog.ports", "dialog.known_speech"},
    "record": {"errors", "apart", "texts", "audio", "prices", "dialog.ports", "dialog.waterfall"},
    "offline": {"errors", "audio", "dialog.turns", "dialog.gate"},
    "bridge": {"errors", "audio", "dialog", "openai_api", "rtp"},
    "call": {
        *("errors", "guard", "logs", "ari", "rtp", "audio", "dialog", "record", "happenings", "line"),
    },
    "backend": {"errors"},
    "brains": {
        *("errors", "settings", "models", "config", "audio", "dialog", "openai_api", "backend"),
        *("ari.instances", "rehearsal", "prices"),
    },
    "outbound": {"errors", "apart", "config", "guard", "ledger", "ari.instances", "call"},
    "calls": {
        *("errors", "logs", "config", "ari", "rtp.sender", "record", "dialog.announcer", "call", "brains"),
        *("outbound", "happenings", "load"),
    },
    "load": set(),
    "line": {"errors", "rtp.quality"},
    "happenings": {"ari.outcome", "dialog.ports", "rtp.quality"},
    "metrics": {
        *("errors", "call", "happenings", "dialog.ports", "dialog.waterfall", "ari.outcome", "rtp.receive"),
    },
    "traces": {"errors", "call", "happenings", "dialog.ports", "dialog.waterfall", "ari.outcome", "metrics"},
    "live": {"call", "happenings", "dialog.ports", "record.events"},
    "desk": {"errors", "logs", "calls", "dialog.phrasebook"},
    "web": {"errors", "guard", "desk", "live", "metrics", "record"},
    "app": {
        *(
            "errors",
            "config",
            "ari",
            "rtp",
            "record.retention",
            "calls",
            "brains",
            "happenings",
            "live",
            "load",
            "metrics",
            "traces",
        ),
        *("desk", "web"),
    },
    "check": {
        *("errors", "config", "models", "guard", "ledger", "ari", "rtp", "audio", "dialog.ports"),
        *("openai_api", "backend", "brains"),
    },
    "demo": {"errors", "settings", "audio", "dialog.waterfall"},
    "sources": {"errors", "config", "parsers", "prices", "settings"},
    "cli_calls": {"errors", "texts", "record"},
    "cli": {
        "errors",
        "event_loop",
        "texts",
        "cli_calls",
        "sources",
        "logs",
        "config",
        "settings",
        "parsers",
        "app",
        "check",
        "happenings",
        "ari.instances",
        "ari.outcome",
        "dialog.ports",
        "demo",
        "offline",
    },
    "__main__": {"cli"},
    "__init__": {"bridge"},
}

CORES = [
    "config.py",
    "settings.py",
    "models.py",
    "guard.py",
    "parsers.py",
    "prices.py",
    "errors.py",
    "texts.py",
    "happenings.py",
    *(f"audio/{name}.py" for name in ("format", "codec", "echo", "neural_vad", "resample", "tones", "vad")),
    *(f"rtp/{name}.py" for name in ("packet", "serial", "jitter", "conceal", "receive", "pacer", "quality")),
    *(f"ari/{name}.py" for name in ("ids", "events", "facts", "callflow", "outcome", "leftovers")),
    *(
        f"dialog/{name}.py"
        for name in (
            "ports",
            "turns",
            "sentences",
            "history",
            "gate",
            "finished",
            "interruption",
            "manner",
            "waterfall",
            "usage",
        )
    ),
    *(
        f"openai_api/realtime_{name}.py"
        for name in (
            *("protocol", "slot", "speech", "caller", "minutes", "memory", "patience", "tools", "usage"),
            "conversation",
        )
    ),
    "web/description.py",
    *(f"record/{name}.py" for name in ("cues", "events", "pauses", "report")),
    *(f"check/{name}.py" for name in ("findings", "loop")),
    "offline/answerer.py",
    "offline/language.py",
    *(
        f"offline/realtime_{name}.py"
        for name in ("audio", "config", "hearing", "input", "items", "response", "responses", "session")
    ),
]

IMPURE = {
    *("asyncio", "socket", "ssl", "time", "random", "os", "logging", "threading", "subprocess"),
    *("aiohttp", "openai", "httpx2", "aioari"),
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    here = place(path)
    assert here in ALLOWED, f"{here} is not in the table of this test: decide what it may import"
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if name.split(".")[0] != "ari_app":
            continue
        target = name.removeprefix("ari_app").lstrip(".")
        if target.split(".")[0] == here or target == "__version__":
            continue
        assert any(target == allowed or target.startswith(allowed + ".") for allowed in ALLOWED[here]), (
            f"{path.relative_to(PACKAGE)} may not import {name}"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_of_the_tests_are_not_used(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert not roots & {"websockets", "agents", "pydantic", "hypothesis", "pytest"}


@pytest.mark.parametrize("name", CORES)
def test_cores_are_pure(name: str) -> None:
    roots = {i.split(".")[0] for i in imports(ast.parse((PACKAGE / name).read_text(encoding="utf-8")))}
    assert not roots & IMPURE


def code_lines(node: ast.AST, source: list[str]) -> int:
    """Lines of `node` that are neither blank, comment nor docstring."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    skipped: set[int] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant) and inner.end_lineno:
            skipped |= set(range(inner.lineno, inner.end_lineno + 1))
    lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return sum(
        1 for n in lines if n not in skipped and (text := source[n - 1].strip()) and not text.startswith("#")
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_sizes_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    source = text.splitlines()
    assert len(source) <= 420 or path.name == "settings.py", (
        f"{path.name} has {len(source)} lines"
    )  # it is a table
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert code_lines(node, source) <= 50, f"{path.name}: {node.name} is too long"
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= 26, f"{path.name}: {node.name} has {len(methods)} methods"
            assert code_lines(node, source) <= 300, f"{path.name}: {node.name} is too long"


def test_model_names_stand_in_two_files_only() -> None:
    from ari_app.config import load
    from ari_app.models import PRICES, RETIREMENTS

    defaults = load({}, {}, {})
    names = set(RETIREMENTS) | set(PRICES) | {defaults.openai_model, defaults.openai_stt_model}
    for path in MODULES:
        if path.name not in ("settings.py", "models.py"):
            strings = {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not strings & names, path

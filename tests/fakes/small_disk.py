"""A file system of a few kilobytes that tests fill: a real one, in a process and a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def on_small_disk(folder: Path, size_kb: int, code: str) -> str:
    """Run Python code whose variable `disk` is a path on it; returns what it printed."""
    mount = f'mount -t tmpfs -o size={size_kb}k none {folder} && exec {sys.executable} -c "$CODE"'
    program = f"from pathlib import Path\ndisk = Path({str(folder)!r})\n{textwrap.dedent(code)}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount],
        env={**os.environ, "CODE": program, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

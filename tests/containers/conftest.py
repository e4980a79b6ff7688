"""These tests need a container engine with both images built: scripts/containers sees to that and calls them."""

from __future__ import annotations

import os

if os.environ.get("ARI_APP_CONTAINERS") != "1":
    collect_ignore_glob = ["test_*.py"]

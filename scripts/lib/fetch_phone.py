"""Puts SIP.js, with which the console's telephone speaks SIP, into this Python environment: share/ari_app/sip.js.

It comes inside a package of the package index, like the speech models: the SIP addon of the Odoo Community Association
carries SIP.js 0.21.2 (MIT) unchanged. Of that package nothing else is used. Prints what went wrong, and exits with 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "odoo-addon-voip-oca==19.0.1.0.2"
SHA256 = "374737380e8f3b3cd9219246a4bceaced4ff48a7a38ec8b3388c128046bdf18e"
MEMBER = "odoo/addons/voip_oca/static/lib/sip.js"
TARGET = Path(sys.prefix) / "share" / "ari_app" / "sip.js"


def main() -> int:
    if TARGET.is_file():
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wanted").write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "-q"]
        command += ["--no-deps", "--require-hashes", "-r", str(folder / "wanted"), "-d", name]
        if subprocess.run(command, check=False).returncode:
            sys.stderr.write(
                "SIP.js could not be had, so the console has no telephone: see pip's message above.\n"
            )
            return 1
        (wheel,) = folder.glob("*.whl")
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            TARGET.write_bytes(archive.read(MEMBER))
    return 0


if __name__ == "__main__":
    sys.exit(main())

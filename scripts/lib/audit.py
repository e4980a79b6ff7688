"""What the application is made of, and what is known to be wrong with it. Standard library only.

Writes into a folder: `application.cdx.json`, the packages that the image holds, and `debian-IMAGE.cdx.json` for each
image that is there: software bills of materials, CycloneDX (ECMA-424); and `audit.json`, the report of pip-audit.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = "ari_app"
EXTRAS = ("offline", "neural", "sealed")
"""As containers/app/Dockerfile installs it."""
IMAGES = ("ari_app-app", "ari_app-asterisk")
EXIT_OK, EXIT_VULNERABLE, EXIT_UNKNOWN = 0, 1, 3
SERVICES = ("pypi", "osv")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def canonical(name: str) -> str:
    """The name as all spellings of it are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted_by(requirements: Iterable[str], extras: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Names and extras of the requirements that count with these extras; of those with conditions, all."""
    found = []
    for requirement in requirements:
        what, _, condition = requirement.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", condition)
        if extra and canonical(extra[1]) not in map(canonical, extras):
            continue
        name = _NAME.match(what.strip())
        if name:
            more = re.search(r"\[([^]]*)\]", what)
            found.append((name[0], tuple(e.strip() for e in more[1].split(",")) if more else ()))
    return found


def closure(root: str, extras: Sequence[str]) -> dict[str, str]:
    """Name and version of each installed package that `root` needs, directly or not."""
    found: dict[str, str] = {}
    todo = [(root, tuple(extras))]
    seen = set()
    while todo:
        name, more = todo.pop()
        if (canonical(name), more) in seen:
            continue
        seen.add((canonical(name), more))
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another system or Python
            continue
        found[canonical(name)] = package.version
        todo += wanted_by(package.requires or (), more)
    del found[canonical(root)]
    return dict(sorted(found.items()))


def keep_only(bom: Mapping[str, Any], packages: Mapping[str, str]) -> dict[str, Any]:
    """The bill of these packages alone."""
    components = [part for part in bom["components"] if canonical(part["name"]) in packages]
    kept = {part["bom-ref"] for part in components}
    dependencies = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", ()) if ref in kept]}
        for entry in bom.get("dependencies", ())
        if entry["ref"] in kept
    ]
    return {**bom, "components": components, "dependencies": dependencies}


def debian_bom(listing: str, image: str) -> dict[str, Any]:
    """The bill of `dpkg-query -W -f '${Package} ${Version} ${Architecture}\\n'`."""
    components = []
    for line in listing.splitlines():
        name, version, architecture = line.split()
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}"
        components.append(
            {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
        )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": image, "bom-ref": image}},
        "components": components,
    }


def verdict(report: Mapping[str, Any], packages: Mapping[str, str]) -> tuple[int, list[str]]:
    """The exit code and the lines of a report of pip-audit on these packages; what was not looked at is not good."""
    lines, looked_at = [], set()
    for entry in report["dependencies"]:
        if "skip_reason" in entry:
            continue
        looked_at.add(canonical(entry["name"]))
        for fault in entry["vulns"]:
            fixed = ", ".join(fault["fix_versions"]) or "no version yet"
            lines.append(f"{entry['name']} {entry['version']}: {fault['id']}, fixed in {fixed}")
    if lines:
        return EXIT_VULNERABLE, lines
    missing = sorted(set(packages) - looked_at)
    if missing:
        return EXIT_UNKNOWN, [f"nothing is known of {len(missing)} of {len(packages)}: {', '.join(missing)}"]
    return EXIT_OK, [f"nothing is known to be wrong with {len(packages)} packages"]


# --- the tools -----------------------------------------------------------------------------------------


def ask(tools: Path, packages: Mapping[str, str], service: str, out: Path) -> Mapping[str, Any] | None:
    """pip-audit's report; None when it gives none."""
    listed = out / "requirements.txt"
    listed.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
    report = out / "audit.json"
    report.unlink(missing_ok=True)
    subprocess.run(
        [
            *(str(tools / "pip-audit"), "-r", str(listed), "--no-deps", "--disable-pip", "-s", service),
            *("--progress-spinner", "off", "--timeout", "10", "-f", "json", "-o", str(report)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    listed.unlink()
    found: dict[str, Any] | None = json.loads(report.read_text()) if report.is_file() else None
    return found


def audit(tools: Path, packages: Mapping[str, str], out: Path) -> tuple[int, list[str]]:
    """Ask the first service that knows anything; one package tells whether it does."""
    first = dict(list(packages.items())[:1])
    for service in SERVICES:
        report = ask(tools, first, service, out)
        if report is not None and verdict(report, first)[0] != EXIT_UNKNOWN:
            report = ask(tools, packages, service, out)
            if report is not None:
                return verdict(report, packages)
    return EXIT_UNKNOWN, [f"no database of vulnerabilities can be reached ({', '.join(SERVICES)})"]


def packages_of_image(image: str) -> str | None:
    """What dpkg says in there; None without an engine or the image."""
    engine = shutil.which("docker") or shutil.which("podman")
    if engine is None:
        return None
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture}\\n"]
    run = [engine, "run", "--rm", "--pull", "never", "--network", "none", "--entrypoint", query[0], image]
    done = subprocess.run([*run, *query[1:]], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="folder of pip-audit and cyclonedx-py")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    packages = closure(ROOT, EXTRAS)
    command = [str(arguments.tools / "cyclonedx-py"), "environment", sys.executable, "--of", "JSON"]
    whole = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bill = out / "application.cdx.json"
    bill.write_text(json.dumps(keep_only(json.loads(whole), packages), indent=1) + "\n")
    print(f"{bill}: {len(packages)} packages")
    for image in IMAGES:
        listing = packages_of_image(image)
        if listing is None:
            print(f"image {image}: not here, so its Debian packages are not listed")
            continue
        bill = out / f"debian-{image}.cdx.json"
        bill.write_text(json.dumps(debian_bom(listing, image), indent=1) + "\n")
        print(f"{bill}: {len(listing.splitlines())} packages")
    code, lines = audit(arguments.tools, packages, out)
    level = {EXIT_OK: "ok", EXIT_VULNERABLE: "VULNERABLE", EXIT_UNKNOWN: "NOT AUDITED"}[code]
    for line in lines:
        print(f"{level}: {line}", file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""A container engine for the tests: the running one, or Debian's, started here and ended afterwards.

Run by scripts/containers. Where a registry can't be asked for the base image, it is made from Debian's packages.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ari_app.demo.apt_sources import debian_mirrors
from ari_app.demo.asterisk_prefix import MIRROR_VARIABLE, Tool, fetch
from ari_app.demo.baresip import BARESIP
from ari_app.errors import SetupError

ROOT = Path(__file__).resolve().parents[2]
BASE_IMAGE, SUITE = "debian:forky-slim", "forky"
NOT_IN_BASE = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/log")
"""What the slim images of Debian leave out too, as far as it has any size."""
EXIT_NO_ENGINE = 3
ENGINE_TIMEOUT_S = 60.0
COMPOSE_SINCE = (2, 24)
PACKAGES = ("docker.io", "iptables", "debootstrap", "ca-certificates")
NO_NETWORK = re.compile(
    r".*(?:Temporary failure (?:in name resolution|resolving)|Could not connect to|Failed to establish a new connection"
    r"|Network is unreachable|Could not resolve).*"
)
"""What apt and pip say where a container can't reach the outside."""
PLUGINS = {
    name: Tool(
        name=f"docker-{name}",
        title=f"docker {name}",
        packages=(f"docker-{name}",),
        binary=f"usr/libexec/docker/cli-plugins/docker-{name}",
        keep=f"docker-{name}",
        suites=("trixie", "forky"),
    )
    for name in ("compose", "buildx")
}
"""Static programs, so they run wherever they are unpacked."""


class NoEngine(Exception):
    """Why the tests can't be run here: a clause that fits behind "because"."""


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def run(*command: str, environ: Mapping[str, str] | None = None) -> str:
    """What the command prints.

    Raises:
        NoEngine: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
        raise NoEngine(f"`{' '.join(command[:3])}` fails: {last}")
    return done.stdout


def answers(*command: str, environ: Mapping[str, str]) -> bool:
    return shutil.which(command[0]) is not None and (
        subprocess.run(command, capture_output=True, env=environ, check=False).returncode == 0
    )


# --- the engine ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def engine(environ: dict[str, str]) -> Iterator[bool]:
    """Yields whether it is one of our own; `environ` leads to it."""
    if answers("docker", "info", environ=environ):
        yield False
        return
    if os.geteuid() != 0:
        raise NoEngine("no Docker engine answers, and only root can start one")
    if shutil.which("dockerd") is None or shutil.which("iptables") is None:
        say("Installing Debian's Docker engine")
        install(PACKAGES)
        if answers("docker", "info", environ=environ):  # the host's init system has started it
            yield False
            return
    with tempfile.TemporaryDirectory(prefix="ari_app-docker-") as name, started(Path(name), environ):
        yield True


def install(packages: tuple[str, ...]) -> None:
    if shutil.which("apt-get") is None:
        raise NoEngine("no Docker engine is installed, and this is not a Debian system")
    quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "-qq", "update", environ=quietly)
    run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages, environ=quietly)


@contextlib.contextmanager
def started(folder: Path, environ: dict[str, str]) -> Iterator[None]:
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ari_app" / "docker"
    cache.mkdir(parents=True, exist_ok=True)
    (folder / "daemon.json").write_text("{}")  # the host's own settings are not for this one
    environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    command = ["setpriv", "--pdeathsig", "TERM", "--", "dockerd"]  # the kernel ends it if we are killed
    command += ["--host", environ["DOCKER_HOST"], "--data-root", str(cache)]
    command += ["--exec-root", str(folder / "run"), "--pidfile", str(folder / "pid")]
    command += ["--config-file", str(folder / "daemon.json")]
    say("Starting a Docker engine")
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(daemon, folder / "log", environ)
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(ENGINE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def wait_for(daemon: subprocess.Popen[bytes], log: Path, environ: Mapping[str, str]) -> None:
    deadline = time.monotonic() + ENGINE_TIMEOUT_S
    while not answers("docker", "info", environ=environ):
        if daemon.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
            raise NoEngine(f"Debian's Docker engine does not start here: {lines[-1]}")
        time.sleep(0.2)


def add_plugins(folder: Path, environ: dict[str, str]) -> None:
    """Compose and BuildKit's client, where the host's are absent or too old."""
    if compose_version(environ) >= COMPOSE_SINCE and answers("docker", "buildx", "version", environ=environ):
        return
    (folder / "cli-plugins").mkdir()
    for tool in PLUGINS.values():
        program = fetch(say, tool).root / tool.binary
        (folder / "cli-plugins" / program.name).symlink_to(program)
    environ["DOCKER_CONFIG"] = str(folder)
    if compose_version(environ) < COMPOSE_SINCE:
        raise NoEngine("Docker Compose 2.24 or newer can't be had")


def compose_version(environ: Mapping[str, str]) -> tuple[int, ...]:
    if not answers("docker", "compose", "version", environ=environ):
        return ()
    said = run("docker", "compose", "version", "--short", environ=environ)
    return tuple(int(part) for part in re.findall(r"\d+", said)[:2])


# --- the images ----------------------------------------------------------------------------------------


def provide_base(environ: Mapping[str, str], *, own_engine: bool) -> None:
    """The image that both Dockerfiles begin from: a registry's, or made here."""
    if answers("docker", "image", "inspect", BASE_IMAGE, environ=environ):
        return
    if not own_engine and answers("docker", "pull", "-q", BASE_IMAGE, environ=environ):
        return
    if os.geteuid() != 0:
        raise NoEngine(f"{BASE_IMAGE} can't be pulled, and only root can make it")
    if shutil.which("debootstrap") is None:
        install(PACKAGES)
    configured = os.environ.get(MIRROR_VARIABLE, "")
    mirrors = [configured] if configured else debian_mirrors(Path("/etc/apt"))
    if not mirrors:
        raise NoEngine(f"its apt sources name no Debian mirror ({MIRROR_VARIABLE} can name one)")
    say(f"Making {BASE_IMAGE} with debootstrap")
    with tempfile.TemporaryDirectory(prefix="ari_app-base-") as name:
        # An old debootstrap does not know the suite's name; sid's script serves all of them.
        script = "/usr/share/debootstrap/scripts/sid"
        run("debootstrap", "--variant=minbase", SUITE, name, mirrors[0], script)
        left_out = [f"--exclude=./{path}/*" for path in (*NOT_IN_BASE, "var/lib/apt/lists")]
        with subprocess.Popen(["tar", "-C", name, *left_out, "-c", "."], stdout=subprocess.PIPE) as archive:
            into = ["docker", "import", "-", BASE_IMAGE]
            subprocess.run(into, stdin=archive.stdout, env=environ, check=True, capture_output=True)


def build(folder: Path, environ: Mapping[str, str]) -> None:
    """Both images, as `docker compose build` does it; this host's way to the package index goes along as secrets."""
    files = ["-f", str(ROOT / "docker-compose.yml")]
    certificates = next(filter(None, map(os.environ.get, ("PIP_CERT", "REQUESTS_CA_BUNDLE"))), None)
    index = os.environ.get("PIP_INDEX_URL")
    if certificates or index:
        pip_conf = folder / "pip.conf"
        lines = ["[global]", f"index-url = {index}" if index else ""]
        lines += ["cert = /run/secrets/ca_bundle"] if certificates else []
        pip_conf.write_text("\n".join(filter(None, lines)) + "\n")
        secrets = {"pip_conf": str(pip_conf), **({"ca_bundle": certificates} if certificates else {})}
        override = folder / "build.yml"
        override.write_text(
            f"services: {{app: {{build: {{secrets: [{', '.join(secrets)}]}}}}}}\n"
            "secrets:\n" + "".join(f"  {name}: {{file: {path}}}\n" for name, path in secrets.items())
        )
        files += ["-f", str(override)]
    say("Building the images")
    # A mirror that lags is of use still; what proves the packages is the signature, checked always.
    options = {**environ, "APT_OPTIONS": "-o Acquire::Check-Valid-Until=false", "DOCKER_BUILDKIT": "1"}
    command = ["docker", "compose", *files, "--project-directory", str(ROOT), "--progress", "plain", "build"]
    done = subprocess.run(command, env=options, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stdout + done.stderr
        say(said)
        if unreachable := NO_NETWORK.search(said):
            raise NoEngine(f"a container has no way to the packages: {unreachable[0]}")
        raise SystemExit("error: the images can't be built, see above")


def main() -> int:
    environ = dict(os.environ)
    try:
        with engine(environ) as own_engine, tempfile.TemporaryDirectory(prefix="ari_app-build-") as name:
            add_plugins(Path(name), environ)
            provide_base(environ, own_engine=own_engine)
            build(Path(name), environ)
            fetch(say, BARESIP)  # here, because some tests call from a network that reaches nothing else
            environ["ARI_APP_CONTAINERS"] = "1"
            tests = [sys.executable, "-m", "pytest", "tests/containers", *sys.argv[1:]]
            return subprocess.run(tests, env=environ, cwd=ROOT, check=False).returncode
    except (NoEngine, SetupError) as reason:
        say(f"error: THE CONTAINERS WERE NOT TESTED, because {reason}")
        return EXIT_NO_ENGINE


if __name__ == "__main__":
    sys.exit(main())

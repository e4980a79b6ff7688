"""Private copies of Debian programs: downloaded, verified and unpacked in the user's cache. Shell.

Nothing is installed on the host and root is not needed: apt downloads into a directory of ours, `dpkg -x`
unpacks, and each program runs by the dynamic loader and the libraries of its own copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ari_app.demo.apt_sources import debian_mirrors
from ari_app.errors import SetupError

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

MIRROR_VARIABLE = "ARI_APP_DEBIAN_MIRROR"
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
MANIFEST = "manifest.json"
NOT_NEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian")
DOWNLOAD_TIMEOUT_S = 900
STEP_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Tool:
    """A program to fetch from Debian."""

    name: str
    """Folder name in the cache."""
    title: str
    """As told to people, e.g. "Asterisk 22"."""
    packages: tuple[str, ...]
    """What apt resolves, together with all dependencies (recommended packages are left out)."""
    binary: str
    """Path of the program inside the copy, e.g. "usr/sbin/asterisk"."""
    version_args: tuple[str, ...] = ()
    """Arguments that make the program print its version and end; empty: not checked."""
    version: str = ""
    """Regular expression that must be found in what it prints."""
    keep: str = ".*"
    """Regular expression: the packages of the dependency closure that are really needed (whole name)."""
    suites: tuple[str, ...] = ("forky",)
    """Debian suites to take it from, the first that the mirror has and that offers it."""


ASTERISK = Tool(
    name="asterisk",
    title="Asterisk 22",
    packages=("asterisk",),
    binary="usr/sbin/asterisk",
    version_args=("-V",),
    version=r"Asterisk 22\.",
    # The whole closure is 160 packages (sounds, odbc, ldap, ...). These are what the loaded modules link to.
    keep=(
        r"asterisk|asterisk-modules|libc6|libgcc-s1|libstdc\+\+6|libssl3t64|zlib1g|libzstd1|libxslt1\.1"
        r"|libxml2-[0-9]+|libuuid1|liburiparser1|libtinfo6|libsystemd0|libsrtp2-1|libnss3|libnspr4"
        r"|libsqlite3-0|libopus0|libmd0|libbsd0|libjansson4|libgsm1|libedit2|libcrypt1|libcap2"
    ),
)


@dataclass(frozen=True, slots=True)
class Prefix:
    """An unpacked copy. `root` looks like `/` of a small Debian system."""

    root: Path

    def command(self, binary: str, *args: str) -> list[str]:
        """The argument vector that runs `binary` (path inside the copy) with the copy's own libraries."""
        libraries = [str(self.root / folder) for folder in self._library_folders()]
        return [str(self._loader()), "--library-path", ":".join(libraries), str(self.root / binary), *args]

    @property
    def library_folder(self) -> Path:
        """The folder of shared libraries, e.g. `usr/lib/x86_64-linux-gnu`."""
        return self.root / self._library_folders()[0]

    def _library_folders(self) -> list[str]:
        # usr/lib first: before the merged /usr some libraries were in /lib, so both are looked at.
        found = [p for top in ("usr/lib", "lib") for p in sorted((self.root / top).glob("*-linux-gnu*"))]
        return [str(p.relative_to(self.root)) for p in found if p.is_dir()]

    def _loader(self) -> Path:
        for folder in (*self._library_folders(), "usr/lib64", "usr/lib"):
            for path in sorted((self.root / folder).glob("ld-linux*.so.*")):
                if path.is_file():
                    return path
        raise SetupError(
            f"the private copy in {self.root} has no dynamic loader; delete that folder and retry"
        )


class _Unavailable(Exception):
    """Why the tool cannot be had here: a clause that fits behind "because"."""


def fetch(progress: Progress, tool: Tool = ASTERISK, *, environ: Mapping[str, str] = os.environ) -> Prefix:
    """The tool's copy, fetched if it is not in the cache or not as it was when fetched. Blocks (seconds).

    Two processes may call this at the same time: one fetches, the other waits and uses the same copy.

    Raises:
        SetupError: it cannot be had on this machine; the sentence says why and what to do instead.
    """
    try:
        cache = _cache_folder(environ)
        root = cache / _folder_name(tool)
        with _locked(cache / f"{root.name}.lock", tool, progress):
            fault = damage(root) if root.exists() else "absent"
            if fault != "absent" and fault:
                progress(f"the private {tool.title} in the cache is damaged ({fault}): fetching it again")
            if fault:
                _build(root, tool, progress, environ)
        return Prefix(root)
    except _Unavailable as reason:
        raise SetupError(
            f"the private {tool.title} cannot be fetched on this machine because {reason}; "
            f"use `docker compose up` instead"
        ) from reason
    except OSError as error:
        raise SetupError(
            f"the private {tool.title} cannot be kept in the cache ({error}); "
            f"set XDG_CACHE_HOME to a writable folder, or use `docker compose up` instead"
        ) from error


def write_manifest(root: Path) -> None:
    """Note what is in the copy, for `damage` to compare with."""
    files = {
        str(path.relative_to(root)): _fingerprint(path)
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
    (root / MANIFEST).write_text(json.dumps({"files": files}, indent=0))


def damage(root: Path) -> str | None:
    """What differs from the manifest written when the copy was made, or None if nothing does."""
    try:
        expected = json.loads((root / MANIFEST).read_text())
        items = list(expected["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is not readable"
    for relative, digest in items:
        if _fingerprint(root / relative) != digest:
            return f"{relative} has changed"
    return None


# --- the cache ---------------------------------------------------------------------------------------


def _cache_folder(environ: Mapping[str, str]) -> Path:
    configured = environ.get("XDG_CACHE_HOME", "")
    home = environ.get("HOME", "")
    if configured.startswith("/"):  # the XDG specification: a relative path is to be ignored
        base = Path(configured)
    elif home.startswith("/"):
        base = Path(home) / ".cache"
    else:
        raise _Unavailable("neither HOME nor XDG_CACHE_HOME names a folder")
    cache = base / "ari_app"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _folder_name(tool: Tool) -> str:
    definition = json.dumps([asdict(tool), os.uname().machine], sort_keys=True)
    return f"{tool.name}-{hashlib.sha256(definition.encode()).hexdigest()[:12]}"


@contextmanager
def _locked(path: Path, tool: Tool, progress: Progress) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another process is fetching {tool.title}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)  # the kernel frees it when the holder ends, however it ends
        yield


def _fingerprint(path: Path) -> str:
    """SHA-256 of a file, or the target of a symbolic link; empty if there is nothing readable."""
    try:
        if path.is_symlink():
            return f"-> {os.readlink(path)}"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


# --- building one copy -------------------------------------------------------------------------------


def _build(root: Path, tool: Tool, progress: Progress, environ: Mapping[str, str]) -> None:
    for leftover in root.parent.glob(f"{root.name}.new-*"):  # of a fetch that was killed; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{root.name}.new-", dir=root.parent) as scratch:
        fresh = Path(scratch) / "root"
        fresh.mkdir()
        archives = _download(Path(scratch) / "apt", tool, progress, environ)
        progress(f"unpacking {len(archives)} packages")
        for archive in archives:
            _run(["dpkg", "-x", str(archive), str(fresh)])
        for folder in NOT_NEEDED:
            shutil.rmtree(fresh / folder, ignore_errors=True)
        _check_version(Prefix(fresh), tool)
        write_manifest(fresh)
        if root.exists():
            root.rename(Path(scratch) / "old")
        fresh.rename(root)
    progress(f"{tool.title} is ready in {root}")


def _check_version(prefix: Prefix, tool: Tool) -> None:
    if not tool.version_args:
        return
    # Several programs end with a code other than 0 after printing their version; what they print decides.
    said = _run(prefix.command(tool.binary, *tool.version_args), must_succeed=False)
    if not re.search(tool.version, said):
        first = said.strip().splitlines()[:1]
        raise _Unavailable(f"the mirror offers another version ({first[0] if first else 'it says nothing'})")


def _download(folder: Path, tool: Tool, progress: Progress, environ: Mapping[str, str]) -> list[Path]:
    missing = [name for name in ("apt-get", "apt-config", "dpkg") if shutil.which(name) is None]
    if missing:
        raise _Unavailable(f"it has no {missing[0]}: it is not a Debian system")
    keyring = next((path for path in KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise _Unavailable("the package debian-archive-keyring, which proves the downloads, is not installed")
    configured = environ.get(MIRROR_VARIABLE, "").strip()
    mirrors = [configured] if configured else debian_mirrors(Path("/etc/apt"))
    if not mirrors:
        raise _Unavailable(f"its apt sources name no Debian mirror ({MIRROR_VARIABLE} can name one)")
    reason = ""
    for number, (mirror, suite) in enumerate((m, s) for m in mirrors for s in tool.suites):
        apt = _PrivateApt(folder / str(number), mirror, suite, keyring)
        try:
            return apt.download(tool, progress)
        except _Unavailable as failure:
            log.debug("suite %s of %s: %s", suite, mirror, failure)
            reason = reason or str(failure)
    raise _Unavailable(
        f"no mirror of its apt sources gives it from Debian {'/'.join(tool.suites)} ({reason})"
    )


class _PrivateApt:
    """apt with state, lists and settings of its own; only the way to the network is the host's."""

    def __init__(self, folder: Path, mirror: str, suite: str, keyring: Path) -> None:
        self.folder = folder
        self.suite = suite
        for part in ("lists/partial", "archives/partial", "etc/preferences.d"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        if not re.fullmatch(r"[a-z+]+:[^\s\[\]]+", mirror):
            raise _Unavailable(f"{MIRROR_VARIABLE} is not a URL")
        machine = _run(["dpkg", "--print-architecture"]).strip()  # else foreign ones are downloaded too
        source = f"deb [arch={machine} signed-by={keyring}] {mirror} {suite} main\n"
        (folder / "sources.list").write_text(source)
        config = folder / "apt.conf"
        config.touch(mode=0o600)  # a proxy's password may be in it
        config.write_text(self._settings() + _network_settings())
        self.environ = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}

    def _settings(self) -> str:
        paths = {
            "Dir::State": self.folder,
            "Dir::State::status": self.folder / "status",
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder,
            "Dir::Cache::archives": self.folder / "archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Etc": self.folder / "etc",
            "Dir::Etc::sourcelist": self.folder / "sources.list",
        }
        nothing = ("sourceparts", "parts", "main", "preferences", "preferencesparts", "trustedparts")
        paths |= {f"Dir::Etc::{name}": "/dev/null" for name in nothing}
        options = {
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # no change to the user _apt, which could not read our folder
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "30",
            "Debug::NoLocking": "true",
            # A mirror that lags is of use still; what proves the packages is the signature, checked always.
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Check-Date": "false",
        }
        return "".join(f'{key} "{value}";\n' for key, value in {**paths, **options}.items())

    def download(self, tool: Tool, progress: Progress) -> list[Path]:
        """All packages of the tool, as files."""
        progress(f"reading the package list of Debian {self.suite}")
        self._apt("-qq", "update")
        plan = self._apt("-qq", "-s", "install", *tool.packages)
        closure = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
        names = [name for name in closure if re.fullmatch(tool.keep, name)]
        listing = self._apt("-qq", "--print-uris", "download", *names)
        total_bytes = sum(int(size) for size in re.findall(r"^'\S+' \S+ (\d+)", listing, re.MULTILINE))
        progress(f"downloading {len(names)} packages, {total_bytes / 1e6:.0f} MB")
        archives = self.folder / "archives"
        self._download(names, archives, total_bytes, progress)
        return sorted(archives.glob("*.deb"))

    def _apt(self, *args: str) -> str:
        return _run(["apt-get", *args], environ=self.environ)

    def _download(self, names: Sequence[str], archives: Path, total_bytes: int, progress: Progress) -> None:
        command = ["apt-get", "-qq", "download", *names]
        with (
            (self.folder / "download.log").open("w+b") as output,
            subprocess.Popen(
                command, cwd=archives, env=self.environ, stdout=output, stderr=output
            ) as process,
        ):
            deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
            while True:
                try:
                    process.wait(timeout=2)
                    break
                except subprocess.TimeoutExpired:
                    done = sum(path.stat().st_size for path in archives.rglob("*") if path.is_file())
                    progress(f"downloaded {done / 1e6:.0f} of {total_bytes / 1e6:.0f} MB")
                if time.monotonic() > deadline:
                    process.kill()
                    raise _Unavailable(f"the download did not end within {DOWNLOAD_TIMEOUT_S // 60} minutes")
            if process.returncode != 0:
                output.seek(0)
                raise _Unavailable(_complaint(output.read().decode(errors="replace"), "apt-get"))


def _network_settings() -> str:
    """The host's proxies and certificates for apt."""
    dump = _run(["apt-config", "dump", "Acquire"])
    wanted = re.findall(r"^(Acquire::(?:http|https|tor)::\S+ \".*\";)$", dump, re.MULTILINE)
    return "".join(f"{line}\n" for line in wanted)


def _run(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, must_succeed: bool = True
) -> str:
    """Standard output and error of a command."""
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _Unavailable(f"{Path(command[0]).name} did not end within {STEP_TIMEOUT_S} s") from error
    if must_succeed and done.returncode != 0:
        raise _Unavailable(_complaint(done.stdout, Path(command[0]).name))
    return done.stdout


def _complaint(output: str, program: str) -> str:
    """The first error line of what a program printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    said = (errors or lines or ["it failed without a word"])[0]
    return f"{program} says: {said.rstrip('.')}"

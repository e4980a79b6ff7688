"""Fetching from Debian: the mirrors, a copy that is whole or fetched again, and honest refusals.

The downloads here are real, of one tiny package, from the mirror in this machine's own apt sources.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ari_app.demo.apt_sources import debian_mirrors
from ari_app.demo.asterisk_prefix import MANIFEST, Prefix, Tool, damage, fetch, write_manifest
from ari_app.errors import SetupError

HELLO = Tool(
    name="hello",
    title="GNU hello",
    packages=("hello",),
    binary="usr/bin/hello",
    version_args=("--version",),
    version=r"GNU Hello",
    keep="hello|libc6",
)


# --- the host's apt sources


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("a.list", "deb http://m.test/debian bookworm main\n", ["http://m.test/debian"]),
        ("a.list", "deb http://m.test/debian/ bookworm main contrib\n", ["http://m.test/debian"]),
        ("a.list", "deb [arch=amd64 signed-by=/k.gpg] https://m.test/d trixie main\n", ["https://m.test/d"]),
        ("a.list", "  deb\thttp://m.test/d  bookworm-updates   main # note\n", ["http://m.test/d"]),
        ("a.list", "# deb http://m.test/d bookworm main\n", []),
        ("a.list", "deb-src http://m.test/d bookworm main\n", []),
        ("a.list", "deb http://m.test/d bookworm-security main\n", []),
        ("a.list", "deb http://m.test/d bookworm stable\n", []),
        ("a.list", "deb http://m.test/ubuntu noble main\n", []),
        ("a.list", "deb cdrom:[Debian]/ bookworm main\n", []),
        ("a.list", "deb http://m.test/d\n", []),
        ("a.save", "deb http://m.test/d bookworm main\n", []),
        (
            "a.sources",
            "Types: deb\nURIs: http://m.test/d\nSuites: sid\nComponents: main\n",
            ["http://m.test/d"],
        ),
        (
            "a.sources",
            "Types: deb deb-src\n# a note\nURIs: http://a.test/d/ http://b.test/d\n"
            "Suites: bookworm\n bookworm-updates\nComponents: main non-free\n",
            ["http://a.test/d", "http://b.test/d"],
        ),
        (
            "a.sources",
            "types: deb\nuris: mirror+file:/etc/apt/mirrors/debian.list\nsuites: trixie\ncomponents: main\n",
            ["mirror+file:/etc/apt/mirrors/debian.list"],
        ),
        (
            "a.sources",
            "Enabled: no\nTypes: deb\nURIs: http://a.test/d\nSuites: sid\nComponents: main\n\n"
            "Types: deb\nURIs: http://b.test/d\nSuites: sid\nComponents: main\n",
            ["http://b.test/d"],
        ),
        ("a.sources", "Types: deb-src\nURIs: http://a.test/d\nSuites: sid\nComponents: main\n", []),
        ("a.sources", "Types: deb\nSuites: sid\nComponents: main\n", []),
        (
            "a.sources",
            "Types: deb\nURIs: http://a.test/d\nSuites: bookworm\nComponents: main\nSigned-By:\n"
            " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME: x\n -----END PGP PUBLIC KEY BLOCK-----\n",
            ["http://a.test/d"],
        ),
    ],
)
def test_mirrors_of_one_file(tmp_path: Path, file: str, text: str, expected: list[str]) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / file).write_text(text)
    assert debian_mirrors(tmp_path) == expected


def test_mirrors_of_all_files_each_once(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.test/d sid main\ndeb http://b.test/d/ sid main\n")
    (tmp_path / "sources.list.d/z.list").write_text("deb http://b.test/d stable main\n")
    assert debian_mirrors(tmp_path) == ["http://a.test/d", "http://b.test/d"]


def test_no_apt_sources_at_all(tmp_path: Path) -> None:
    assert debian_mirrors(tmp_path) == []


# --- the manifest


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of two files and a link, with its manifest."""
    root = tmp_path / "copy"
    (root / "usr").mkdir(parents=True)
    (root / "usr/program").write_bytes(b"\x7fELF")
    (root / "usr/library.so.1").write_bytes(b"code")
    (root / "usr/library.so").symlink_to("library.so.1")
    write_manifest(root)
    return root


def test_an_untouched_copy_is_whole(copy: Path) -> None:
    assert damage(copy) is None


def test_a_changed_byte_is_noticed(copy: Path) -> None:
    (copy / "usr/program").write_bytes(b"\x7fELG")
    assert damage(copy) == "usr/program has changed"


def test_a_missing_file_is_noticed(copy: Path) -> None:
    (copy / "usr/library.so.1").unlink()
    assert damage(copy) == "usr/library.so.1 has changed"


def test_a_link_that_leads_elsewhere_is_noticed(copy: Path) -> None:
    (copy / "usr/library.so").unlink()
    (copy / "usr/library.so").symlink_to("/tmp/other")
    assert damage(copy) == "usr/library.so has changed"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": []}', '{"files": 3}', "\x00"])
def test_an_unreadable_manifest_is_damage(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    assert damage(copy) == "its manifest is not readable"


# --- fetching


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def say_hello(prefix: Prefix) -> str:
    return subprocess.run(prefix.command(HELLO.binary), capture_output=True, text=True, check=True).stdout


def test_two_at_once_share_one_fetch(cache: Path) -> None:
    code = (
        "import sys; from tests.demo.test_asterisk_prefix import HELLO, fetch; "
        "prefix = fetch(lambda line: print(line, flush=True), HELLO); print('root', prefix.root)"
    )
    environ = {"HOME": str(cache / "empty home"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    command = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[2]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, cwd=root) for _ in range(2)
    ]
    said = [process.communicate(timeout=110)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum("downloading" in text for text in said) == 1
    assert {text.splitlines()[-1] for text in said} == {said[0].splitlines()[-1]}
    kept = list((cache / "empty home/.cache/ari_app").iterdir())
    assert sorted(path.suffix for path in kept) == ["", ".lock"], "no scratch folder is left"


def test_a_whole_copy_needs_no_network_and_a_damaged_one_is_fetched_again(cache: Path) -> None:
    lines: list[str] = []
    environ = {"HOME": str(cache / "empty home")}
    offline = {**environ, "ARI_APP_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"}
    prefix = fetch(lines.append, HELLO, environ=offline)
    assert say_hello(prefix) == "Hello, world!\n"
    assert lines == []

    (prefix.root / HELLO.binary).write_bytes(b"not a program")
    again = fetch(lines.append, HELLO, environ=environ)
    assert "is damaged (usr/bin/hello has changed): fetching it again" in lines[0]
    assert say_hello(again) == "Hello, world!\n"
    assert damage(again.root) is None


@pytest.fixture
def empty_mirror() -> Iterator[str]:
    """A web server that has nothing."""

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/debian"
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(environ: dict[str, str], tool: Tool = HELLO) -> str:
    with pytest.raises(SetupError) as caught:
        fetch(lambda line: None, tool, environ=environ)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "`docker compose up`" in sentence
    return sentence


def test_a_mirror_without_the_suite(tmp_path: Path, empty_mirror: str) -> None:
    sentence = refusal({"HOME": str(tmp_path), "ARI_APP_DEBIAN_MIRROR": empty_mirror})
    assert "forky" in sentence
    assert "does not have a Release file" in sentence
    assert [path.suffix for path in (tmp_path / ".cache/ari_app").iterdir()] == [".lock"]


def test_a_mirror_that_is_no_url(tmp_path: Path) -> None:
    sentence = refusal({"HOME": str(tmp_path), "ARI_APP_DEBIAN_MIRROR": "http://a.test/d main\ndeb http://b"})
    assert "ARI_APP_DEBIAN_MIRROR is not a URL" in sentence


def test_a_host_that_is_not_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "it has no apt-get" in refusal({"HOME": str(tmp_path)})


def test_no_home() -> None:
    assert "neither HOME nor XDG_CACHE_HOME names a folder" in refusal({})


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "set XDG_CACHE_HOME" in refusal({"HOME": str(tmp_path / "file")})


def test_a_relative_cache_folder_is_ignored(tmp_path: Path) -> None:
    refusal({"HOME": str(tmp_path), "XDG_CACHE_HOME": "here", "ARI_APP_DEBIAN_MIRROR": "nonsense"})
    assert (tmp_path / ".cache/ari_app").is_dir()
    assert not Path("here").exists()


def test_another_version_than_promised(cache: Path, tmp_path: Path) -> None:
    wrong = Tool(**{**{name: getattr(HELLO, name) for name in HELLO.__slots__}, "version": "Asterisk 22"})
    assert "another version (hello (GNU Hello)" in refusal({"HOME": str(tmp_path)}, wrong)

"""One `docker compose up` of the project's file, with an `.env` and a project name of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ari_app.demo.caller import SipCaller

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("ari_app-asterisk", "ari_app-app")
UP_TIMEOUT_S = 90
PASSWORD = "/secrets/asterisk/caller_password"


def docker(*arguments: str, check: bool = True, environ: Mapping[str, str] | None = None) -> str:
    """What the command prints; its error as an assertion."""
    command = ["docker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environ, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


class Stack:
    """Both containers, up from enter to exit; its volumes are new and go with it.

    Args:
        folder: stands for the clone in which an operator keeps `.env`.
        env: what `.env` holds; None: there is no such file.
        environ: set in the shell of the operator, such as ports that are free on a machine with other tests.
        project: several can be up at once under different names, if their ports differ.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str] | None,
        environ: Mapping[str, str] | None = None,
        *,
        project: str = "ari_app-test",
    ) -> None:
        self.project = project
        self.folder = folder
        self.up_s = 0.0
        """From `docker compose up` until both were healthy."""
        self._env = env
        self._environ = {**os.environ, **(environ or {})}
        self.compose_command = ["compose", "-p", project, "-f", str(ROOT / "docker-compose.yml")]
        self.compose_command += ["--project-directory", str(folder)]

    def __enter__(self) -> Stack:
        (self.folder / "containers/asterisk/local").mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            if self._env is None:
                self.compose("up", "-d", "--no-build", "--wait", "--wait-timeout", str(UP_TIMEOUT_S))
            else:
                self.set(self._env)
        except BaseException:
            print(self.compose("logs", check=False))  # noqa: T201, shown on failure
            self.__exit__(None, None, None)
            raise
        self.up_s = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(self.compose("logs", check=False))  # noqa: T201, shown on failure
        self.compose("down", "--volumes", "--timeout", "5")

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` on this project."""
        return docker(*self.compose_command, *arguments, check=check, environ=self._environ)

    def down(self) -> subprocess.Popen[bytes]:
        """Begin an operator's `docker compose down`."""
        command = ["docker", *self.compose_command, "down"]
        return subprocess.Popen(command, env=self._environ, stderr=subprocess.DEVNULL)

    def exec(self, service: str, *command: str) -> str:
        """Run a command in a container, as `docker compose exec` does for an operator."""
        return self.compose("exec", "-T", service, *command)

    def console(self, command: str) -> str:
        """Of Asterisk."""
        return self.exec("asterisk", "asterisk", "-C", "/etc/asterisk/asterisk.conf", "-rx", command)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of the container."""
        container = self.compose("ps", "-a", "-q", service).strip()
        found: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return found

    def address(self, service: str, network: str) -> str:
        """The container's in one of the two networks."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return str(networks[f"{self.project}_{network}"]["IPAddress"])

    def kill(self, service: str, program: str) -> None:
        """Kill that program in the container as a crash does; the engine would not restart what itself killed."""
        processes = docker("top", self.inspect(service)["Id"], "-eo", "pid,comm").splitlines()[1:]
        pid = next(line.split()[0] for line in processes if line.split()[1] == program)
        docker(
            *("run", "--rm", "--pid=host", "--user=0", "--entrypoint=sh", "ari_app-asterisk"),
            *("-c", f"kill -9 {pid}"),
        )

    def is_ready(self) -> bool:
        """Whether the application takes calls."""
        ask = "import urllib.request as u; u.urlopen('http://127.0.0.1:8089/ready', timeout=2)"
        command = ["docker", *self.compose_command, "exec", "-T", "app", "python", "-c", ask]
        return subprocess.run(command, env=self._environ, capture_output=True, check=False).returncode == 0

    def phone(self, server: tuple[str, int], address: str, *, register: bool = False) -> SipCaller:
        """A softphone at `address` with the account that Asterisk made."""
        password = self.exec("asterisk", "cat", PASSWORD).strip()
        return SipCaller(
            server=server, user="demo-caller", password=password, address=address, register=register
        )

    def set(self, env: Mapping[str, str]) -> None:
        """Write `.env` and have it taken over, as an operator does."""
        (self.folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in env.items()))
        self.compose("up", "-d", "--no-build", "--wait", "--wait-timeout", str(UP_TIMEOUT_S))


def host_address() -> str:
    """An address of this machine that is not loopback: that of the engine's default bridge.

    Asked of the kernel: an engine that has just made the bridge does not tell its address (`Gateway`) yet.
    """
    options = json.loads(docker("network", "inspect", "bridge"))[0]["Options"]
    command = ["ip", "-json", "-4", "address", "show", options["com.docker.network.bridge.name"]]
    done = subprocess.run(command, capture_output=True, check=True)
    return str(json.loads(done.stdout)[0]["addr_info"][0]["local"])

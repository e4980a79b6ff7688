"""A network beside this machine with one host in it, which reaches this machine and nothing behind it.

What a phone in the operator's local network sees: only the ports that are published.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

SERVER, PHONE = "198.18.77.1", "198.18.77.2"
"""This machine's address there and the host's (a range for tests, RFC 2544)."""
NAMESPACE = "ari_app-lan"
CLONE_NEWNET = 0x40000000
"""For setns(2)."""


@contextlib.contextmanager
def lan() -> Iterator[None]:
    """The network, from enter to exit. Needs root."""
    assert os.geteuid() == 0, (
        "only root can make the network that these tests call from: run scripts/containers as root"
    )
    _remove()  # what a killed run left
    _ip("netns", "add", NAMESPACE)
    try:
        _ip("link", "add", "aalan0", "type", "veth", "peer", "name", "aalan1", "netns", NAMESPACE)
        _ip("address", "add", f"{SERVER}/30", "dev", "aalan0")
        _ip("link", "set", "aalan0", "up")
        _ip("-n", NAMESPACE, "address", "add", f"{PHONE}/30", "dev", "aalan1")
        for device in ("aalan1", "lo"):
            _ip("-n", NAMESPACE, "link", "set", device, "up")
        yield
    finally:
        _remove()


@contextlib.contextmanager
def inside() -> Iterator[None]:
    """This thread, and the processes it starts, are on the host in that network."""
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{NAMESPACE}").open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(namespace, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def _remove() -> None:
    for command in (("link", "delete", "aalan0"), ("netns", "delete", NAMESPACE)):
        with contextlib.suppress(AssertionError):
            _ip(*command)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"

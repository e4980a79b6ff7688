"""Sending a datagram without letting go of the interpreter. Shell.

Python's own `sendto` lets other threads run while the kernel works, which for a datagram takes microseconds. When the
event loop is busy it takes the interpreter at that moment and keeps it for a switch interval: a hundred packets of a
hundred calls then leave over tens of milliseconds. So the C library is called directly, with the interpreter held; the
kernel never makes it wait, because of MSG_DONTWAIT.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable

Send = Callable[[bytes], None]
"""Sends one datagram; raises OSError when the kernel does not take it."""


def sender_to(sock: socket.socket, host: str, port: int) -> Send:
    """What sends from a socket to one address, which is numeric."""
    if sys.platform != "linux":
        return lambda data: _send_by_python(sock, data, (host, port))
    address = _sockaddr(host, port)
    function, length, flags = _libc_sendto, len(address), socket.MSG_DONTWAIT

    def send(data: bytes) -> None:
        if function(sock.fileno(), data, len(data), flags, address, length) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    return send


def _send_by_python(sock: socket.socket, data: bytes, remote: tuple[str, int]) -> None:
    sock.sendto(data, remote)


def _sockaddr(host: str, port: int) -> bytes:
    """`struct sockaddr_in` or `sockaddr_in6` of Linux."""
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv4Address):
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, ip.packed)
    scope = int(ip.scope_id) if ip.scope_id and ip.scope_id.isdigit() else 0
    return (
        struct.pack("=H", socket.AF_INET6)
        + struct.pack("!HI16s", port, 0, ip.packed)
        + struct.pack("=I", scope)
    )


# PyDLL, not CDLL: it keeps the interpreter.
_libc_sendto = ctypes.PyDLL(None, use_errno=True).sendto
_libc_sendto.argtypes = (
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int),
    *(ctypes.c_char_p, ctypes.c_uint),
)
_libc_sendto.restype = ctypes.c_ssize_t

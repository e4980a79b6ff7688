"""The variables of `.env` as settings of render.py: names, the RTP range, and what NAT needs to know.

Standard library only, like render.py.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

VARIABLES: Mapping[str, str] = {
    "trunk_domain": "SIP_DOMAIN",
    "trunk_port": "SIP_PORT",
    "trunk_transport": "SIP_TRANSPORT",
    "trunk_proxy": "SIP_PROXY",
    "trunk_username": "SIP_USERNAME",
    "trunk_password": "SIP_PASSWORD",
    "trunk_auth_username": "SIP_AUTH_USERNAME",
    "trunk_register": "SIP_REGISTER",
    "trunk_peers": "SIP_PEERS",
    "trunk_srtp": "SIP_SRTP",
    "trunk_codecs": "SIP_CODECS",
    "trunk_ca_file": "SIP_CA_FILE",
    "sip_port": "SIP_LISTEN_PORT",
    "browser_phone": "BROWSER_PHONE",
    "external_address": "EXTERNAL_ADDRESS",
    "local_nets": "LOCAL_NETS",
    "bot_extension": "BOT_EXTENSION",
    "fallback_extension": "FALLBACK_EXTENSION",
    "away_sound": "AWAY_SOUND",
    "app_name": "ARI_APP",
    "ari_username": "ARI_USERNAME",
    "rtp_start": "SIP_RTP_PORTS",
    "rtp_end": "SIP_RTP_PORTS",
}
"""Setting of render.py to variable."""

LOWER_CASE = ("browser_phone", "trunk_transport", "trunk_register", "trunk_srtp", "trunk_codecs")
LISTS = ("trunk_peers", "trunk_codecs", "local_nets")
STUN_PORT = 3478
STUN_TRIES = 3
STUN_TIMEOUT_S = 1.0
ROUTES = Path("/proc/net/route")
"""The kernel's IPv4 routes (proc(5))."""


def read(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings that the environment gives; a variable without a value counts as absent.

    Asks STUN_SERVER for our outside address when EXTERNAL_ADDRESS is not given.

    Raises:
        ValueError: a value is not acceptable; one sentence that names the variable.
    """
    given: dict[str, str] = {}
    for setting, variable in VARIABLES.items():
        value = environ.get(variable, "")
        if setting in LOWER_CASE:
            value = value.lower()
        if setting in LISTS:
            value = re.sub(r" *, *", ",", value)
        if value:
            given[setting] = value
    if path := environ.get("SIP_PASSWORD_FILE", ""):
        if "trunk_password" in given:
            raise ValueError("SIP_PASSWORD and SIP_PASSWORD_FILE are both set: leave one of them empty")
        given["trunk_password"] = secret_in(path)
    if "rtp_start" in given:
        given["rtp_start"], given["rtp_end"] = port_range(given["rtp_start"])
    if environ.get("LOG_FORMAT", "").lower() == "text":
        given["log_format"] = "text"
    else:
        given["log_format"] = "json"
    server = environ.get("STUN_SERVER", "")
    if server and "external_address" not in given:
        given["external_address"] = outside_address(server)
    if "external_address" in given and "local_nets" not in given and ROUTES.is_file():
        given["local_nets"] = ",".join(on_link_networks(ROUTES.read_text(encoding="ascii")))
    return given


def secret_in(path: str) -> str:
    """The first line of the file of SIP_PASSWORD_FILE.

    Raises:
        ValueError: it can't be read, or is empty.
    """
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.readline(1024).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ValueError(f"SIP_PASSWORD_FILE={path} can't be read: {reason}") from None
    if not secret:
        raise ValueError(f"SIP_PASSWORD_FILE={path} is empty")
    return secret


def port_range(text: str) -> tuple[str, str]:
    """First and last port of `10000-10199`.

    Raises:
        ValueError: it is no such range.
    """
    match = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text, re.ASCII)
    if match is None or not 1024 <= int(match[1]) < int(match[2]) <= 65535:
        raise ValueError("SIP_RTP_PORTS must be two ports from 1024 to 65535 such as 10000-10199")
    return match[1], match[2]


def on_link_networks(routes: str) -> list[str]:
    """The networks that this machine is part of: routes without a gateway. Numbers are in the host's byte order."""
    networks = []
    for line in routes.splitlines()[1:]:
        fields = line.split()
        destination, gateway, mask = (
            socket.inet_ntoa(struct.pack("=L", int(fields[column], 16))) for column in (1, 2, 7)
        )
        if gateway == "0.0.0.0" and destination != "0.0.0.0":
            networks.append(str(ipaddress.IPv4Network(f"{destination}/{mask}")))
    return networks


# --- STUN (RFC 8489): which address does the outside see? ----------------------------------------------

MAGIC_COOKIE = 0x2112A442
BINDING_REQUEST, BINDING_SUCCESS = 0x0001, 0x0101
XOR_MAPPED_ADDRESS = 0x0020
IPV4_FAMILY = 0x01


def binding_request(transaction_id: bytes) -> bytes:
    """A Binding request without attributes; the id has 12 bytes."""
    return struct.pack("!HHL12s", BINDING_REQUEST, 0, MAGIC_COOKIE, transaction_id)


def mapped_address(answer: bytes, transaction_id: bytes) -> str | None:
    """The IPv4 address in XOR-MAPPED-ADDRESS; None when this is not the answer to our request."""
    if len(answer) < 20:
        return None
    kind, length, cookie, answered = struct.unpack_from("!HHL12s", answer)
    if (kind, cookie, answered) != (BINDING_SUCCESS, MAGIC_COOKIE, transaction_id):
        return None
    position, end = 20, min(20 + length, len(answer))
    while position + 4 <= end:
        attribute, size = struct.unpack_from("!HH", answer, position)
        if attribute == XOR_MAPPED_ADDRESS and size >= 8 and position + 12 <= end:
            _, family, _, address = struct.unpack_from("!BBHL", answer, position + 4)
            if family == IPV4_FAMILY:
                return str(ipaddress.IPv4Address(address ^ MAGIC_COOKIE))
        position += 4 + (size + 3) // 4 * 4
    return None


def outside_address(server: str) -> str:
    """Ask `host` or `host:port`.

    Raises:
        ValueError: it can't be reached or gives no answer; one sentence.
    """
    host, _, port = server.removeprefix("stun:").partition(":")
    if not host or not re.fullmatch(r"[0-9]{0,5}", port, re.ASCII) or not 0 < int(port or STUN_PORT) < 65536:
        raise ValueError("STUN_SERVER must be a host or host:port")
    transaction_id = secrets.token_bytes(12)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(STUN_TIMEOUT_S)
            asking.connect((host, int(port or STUN_PORT)))
            for _ in range(STUN_TRIES):
                asking.send(binding_request(transaction_id))
                try:
                    address = mapped_address(asking.recv(2048), transaction_id)
                except TimeoutError:
                    continue
                if address is not None:
                    return address
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"STUN_SERVER can't be asked ({reason}): correct it, or set EXTERNAL_ADDRESS"
        ) from None
    raise ValueError("STUN_SERVER gives no answer: correct it, or set EXTERNAL_ADDRESS")

"""The signalling of the benchmark's callers: SIPp, from Debian, in a private copy like Asterisk's. Shell."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ari_app.demo.asterisk_prefix import Prefix, Tool
from ari_app.errors import SetupError

SIPP = Tool(
    name="sipp",
    title="SIPp",
    packages=("sip-tester",),
    binary="usr/bin/sipp",
    version_args=("-v",),
    version=r"SIPp v3\.",
    keep=(
        r"sip-tester|libc6|libgcc-s1|libstdc\+\+6|libpugixml1v5|libncursesw6|libtinfo6|libgsl[0-9]+"
        r"|libgslcblas0|libssl3t64|zlib1g|libzstd1|libpcap0\.8t64|libsctp1|libdbus-1-3|libibverbs1"
        r"|libnl-3-200|libnl-route-3-200|libsystemd0|libcap2"
    ),
)
HOST = "127.0.0.1"

_HEAD = """\
{method} sip:{extension}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:{user}@[local_ip]:[local_port]>;tag=[pid]-[call_number]
To: <sip:{extension}@[remote_ip]:[remote_port]>{to_tag}
Call-ID: [call_id]
CSeq: {sequence} {method}
Contact: <sip:{user}@[local_ip]:[local_port]>
Max-Forwards: 70
{more}Content-Length: [len]

"""
_SDP = """\
v=0
o=bench 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio [field0] RTP/AVP 0
a=rtpmap:0 PCMU/8000
a=ptime:20
"""
_AUTHENTICATION = "[authentication username={user} password={password}]\n"
_BYE_ANSWER = """\
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

"""
_OPTIONAL = '<recv response="{status}" optional="true"/>'


def scenario(*, extension: str, user: str, password: str, seconds: float) -> str:
    """INVITE with a digest, ACK, and a BYE from either side."""

    def request(method: str, sequence: int, *, answered: bool = False, digest: bool = False) -> str:
        more = _AUTHENTICATION.format(user=user, password=password) if digest else ""
        body = ""
        if method == "INVITE":
            more += "Content-Type: application/sdp\n"
            body = _SDP
        head = _HEAD.format(
            method=method,
            extension=extension,
            user=user,
            to_tag="[peer_tag_param]" if answered else "",
            sequence=sequence,
            more=more,
        )
        retransmit = ' retrans="500"' if method != "ACK" else ""
        return f"<send{retransmit}><![CDATA[\n{head}{body}]]></send>"

    steps = [
        request("INVITE", 1),
        _OPTIONAL.format(status=100),
        '<recv response="401" auth="true"/>',
        request("ACK", 1, answered=True),
        request("INVITE", 2, digest=True),
        *(_OPTIONAL.format(status=status) for status in (100, 180, 183)),
        '<recv response="200"/>',
        request("ACK", 2, answered=True),
        # The far side ends the call, when whoever measures has what he wanted; or the time is over.
        f'<recv request="BYE" timeout="{round(seconds * 1000)}" ontimeout="over"/>',
        f"<send next='end'><![CDATA[\n{_BYE_ANSWER}]]></send>",
        '<label id="over"/>',
        request("BYE", 3, answered=True, digest=True),
        '<recv response="200"/>',
        '<label id="end"/>',
    ]
    lines = "\n".join(steps)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="caller">\n{lines}\n</scenario>\n'


async def place_calls(
    prefix: Prefix,
    *,
    server: tuple[str, int],
    extension: str,
    user: str,
    password: str,
    ports: Sequence[int],
    seconds: float,
    per_second: float,
) -> list[float]:
    """Place one call for each media port, hold each until the far side ends it, at most for `seconds`.

    Returns:
        When each was answered, as seconds since the epoch.

    Raises:
        SetupError: a call failed.
    """
    with tempfile.TemporaryDirectory(prefix="ari_app-bench-") as folder:
        work = Path(folder)
        (work / "caller.xml").write_text(
            scenario(extension=extension, user=user, password=password, seconds=seconds)
        )
        (work / "ports.csv").write_text("SEQUENTIAL\n" + "".join(f"{port}\n" for port in ports))
        process = await asyncio.create_subprocess_exec(
            *prefix.command(
                SIPP.binary,
                f"{server[0]}:{server[1]}",
                *("-sf", "caller.xml", "-inf", "ports.csv", "-i", HOST, "-mi", HOST, "-nostdin"),
                *("-m", str(len(ports)), "-l", str(len(ports)), "-r", f"{per_second:g}"),
                *("-timeout", f"{seconds + 60:.0f}s"),
                *("-trace_shortmsg", "-shortmessage_file", "messages.csv"),
                *("-trace_err", "-error_file", "errors.log"),
            ),
            cwd=work,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={"TERM": "dumb"},
        )
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        answered = answers((work / "messages.csv").read_text("utf-8", errors="replace"))
        errors = work / "errors.log"
        if status or len(answered) != len(ports):
            words = errors.read_text("utf-8", errors="replace")[:500] if errors.exists() else "no error log"
            raise SetupError(f"{len(ports) - len(answered)} of {len(ports)} calls failed: {words}")
    return answered


def answers(trace: str) -> list[float]:
    """From SIPp's short message log: when the 200 of each INVITE came, in order of the calls."""
    times: dict[int, float] = {}
    for line in trace.splitlines():
        fields = line.split("\t")
        if len(fields) >= 7 and fields[5].endswith("INVITE") and fields[6].endswith("200 OK"):
            times.setdefault(int(fields[4].partition("-")[0]), float(fields[2]))
    return [times[call] for call in sorted(times)]

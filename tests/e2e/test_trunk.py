"""The trunk against a provider: a second Asterisk that registers our account, and a strict registrar of our own."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trustme

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix
from ari_app.demo.caller import SipCaller
from tests.e2e.applications import ServeProcess, finish, keep_secret
from tests.e2e.checks import asterisk_footprint, asterisk_settled
from tests.e2e.conftest import settings_for
from tests.e2e.test_dial import start_dial
from tests.fakes.raw_sip_phone import RawSipPhone
from tests.fakes.registrar import Registrar

ACCOUNT, PASSWORD = "49301234", "a provider's password"
keep_secret(PASSWORD)
NUMBER = "+4930987654"
PROVIDER = "127.0.0.3"
"""Not our own address: who calls from the provider's is the trunk."""

# The provider's side: our account, a caller's number that rings us, and a number that we call.
PROVIDER_PJSIP = """
[{account}](endpoint-common)
context = from-internal
transport = transport-{transport}
auth = {account}
aors = {account}
identify_by = username,auth_username
media_encryption = {encryption}
[{account}]
type = auth
auth_type = digest
username = {account}
password = {password}
[{account}]
type = aor
max_contacts = 1
remove_existing = yes
"""
PROVIDER_TRANSPORT = """
[transport-{transport}]
type = transport
protocol = {transport}
bind = {address}:{port}
{tls}
"""
PROVIDER_EXTENSIONS = """
exten => _+49X.,1,Dial(PJSIP/${{EXTEN}}@{account},20)
exten => 5551,1,Answer()
 same => n,PlayTones(440/1000)
 same => n,Wait(2)
 same => n,Hangup(16)
"""


@asynccontextmanager
async def provider_for(
    prefix: Prefix, folder: Path, transport: str
) -> AsyncIterator[tuple[PrivateAsterisk, int, str]]:
    """The provider, its SIP port, and the file of the authority that signed its certificate."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((PROVIDER, 0))
        port = probe.getsockname()[1]
    etc = folder / "etc"
    etc.mkdir(parents=True)
    tls, authority = "", ""
    if transport == "tls":
        certificate_authority = trustme.CA()
        authority = str(folder / "authority.pem")
        certificate_authority.cert_pem.write_to_path(authority)
        certificate = certificate_authority.issue_cert(PROVIDER)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "provider.pem"))
        tls = f"cert_file = {folder}/provider.pem\npriv_key_file = {folder}/provider.pem\nmethod = tlsv1_2"
    pjsip = PROVIDER_PJSIP.format(
        account=ACCOUNT, password=PASSWORD, transport=transport, encryption="sdes" if tls else "no"
    )
    pjsip += PROVIDER_TRANSPORT.format(transport=transport, address=PROVIDER, port=port, tls=tls)
    pjsip = pjsip.replace(f"transport-{transport}", "transport-provider")
    (etc / "pjsip_local.conf").write_text(pjsip)
    (etc / "extensions_local.conf").write_text(PROVIDER_EXTENSIONS.format(account=ACCOUNT))
    async with PrivateAsterisk(prefix, AsteriskSettings(app_name="nobody"), folder=folder) as provider:
        yield provider, port, authority


async def registered(asterisk: PrivateAsterisk, word: str = "Registered") -> None:
    """Until the registration of the trunk is in this state."""
    said = ""
    for _ in range(150):
        said = await asterisk.rx("pjsip show registrations")
        if re.search(rf"^ *trunk/.*\s{word}\b", said, re.MULTILINE):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{said}\n{asterisk.log_path.read_text()}")


async def all_heard(phone: SipCaller, number: str) -> float:
    """Call, and how many seconds of sound came before it was quiet again."""
    call = await phone.dial(number)
    await call.answered(10)
    heard = (await call.listen_until_silence(max_s=10)).sound_s
    await call.hangup()
    return heard


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_calls_both_ways_over_a_registered_trunk(
    transport: str, asterisk_prefix: Prefix, baresip_prefix: Prefix, backend_url: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        provider, port, authority = await enter(
            provider_for(asterisk_prefix, tmp_path / "provider", transport)
        )
        settings = AsteriskSettings(
            trunk_domain=PROVIDER,
            trunk_port=str(port),
            trunk_transport=transport,
            trunk_username=ACCOUNT,
            trunk_password=PASSWORD,
            trunk_srtp="sdes" if authority else "no",
            trunk_ca_file=authority or AsteriskSettings().trunk_ca_file,
        )
        asterisk = await enter(PrivateAsterisk(asterisk_prefix, settings))
        await registered(asterisk)
        before = await asterisk_footprint(asterisk)

        code, out, err = await finish(await start_dial(asterisk, backend_url, tmp_path, "5551"))
        assert code == 0, (out, err)
        assert "answered" in out.splitlines()

        environment = settings_for(asterisk, backend_url, tmp_path / "recordings")
        serving = await enter(
            ServeProcess(environment | {"GREETING": "Hello from the bot."}, directory=tmp_path)
        )
        server = (provider.sip_host, provider.sip_port)
        phone = await enter(
            SipCaller(
                server=server,
                user=provider.caller_user,
                password=provider.caller_password,
                prefix=baresip_prefix,
            )
        )
        assert await all_heard(phone, NUMBER) > 0.5, "the greeting was not heard"
        assert await asterisk_settled(asterisk, before) == before
        log = serving.log()
    assert NUMBER in log, "the number that was called is not known"
    recordings = [path.name for path in (tmp_path / "recordings").iterdir()]
    assert len(recordings) == 2


async def test_an_account_is_refused_then_accepted(asterisk_prefix: Prefix) -> None:
    password = "p;a\"s#s\\w$o'r d"  # nothing in a configuration file may change it
    async with Registrar(ACCOUNT, password, host=PROVIDER, forbid=True) as registrar:
        settings = AsteriskSettings(
            trunk_domain=PROVIDER,
            trunk_port=str(registrar.port),
            trunk_username=ACCOUNT,
            trunk_password=password,
        )
        async with PrivateAsterisk(asterisk_prefix, settings) as asterisk:
            await registered(asterisk, "Rejected")
            assert "403" in asterisk.log_path.read_text()
            assert password not in asterisk.log_path.read_text()
            registrar.forbid = False
            await asterisk.rx("pjsip send register trunk")
            await registered(asterisk)
    assert registrar.wrong == 0
    assert f"sip:100@127.0.0.1:{asterisk.sip_port}" in registrar.contacts[0]


async def test_the_trunk_is_known_by_its_address_and_nobody_else_gets_in(asterisk_prefix: Prefix) -> None:
    settings = AsteriskSettings(trunk_domain=PROVIDER)
    async with PrivateAsterisk(asterisk_prefix, settings) as asterisk:
        async with RawSipPhone(asterisk.sip_port, "4930111", host=PROVIDER) as trunk:
            # Nobody serves the bot: the away answer shows that the call came as far as the bot.
            assert await trunk.invite("+4930987654") == 200
            await trunk.hang_up()
            # The trunk reaches the bot and nothing else.
            assert await trunk.invite("demo-caller") == 404
        async with RawSipPhone(asterisk.sip_port, "4930111", host="127.0.0.4") as scanner:
            assert await scanner.invite("+4930987654") == 401
            assert await scanner.invite("100") == 401
        security = (asterisk.log_path.parent / "security.log").read_text()
    # What fail2ban's filter "asterisk" looks for: SECURITY, the event, and the address in RemoteAddress.
    refused = re.compile(
        r'^\[[^]]+\] SECURITY\[\d+\] res_security_log\.c: SecurityEvent="InvalidAccountID",'
        r'.*,RemoteAddress="IPV4/UDP/127\.0\.0\.4/\d+"',
        re.MULTILINE,
    )
    assert len(refused.findall(security)) >= 1, security
    assert "127.0.0.3" not in "".join(line for line in security.splitlines() if "Invalid" in line)

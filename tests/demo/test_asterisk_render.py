"""The configuration templates: strict placeholders, no value is more than a value, no file is for others."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
RENDERER = ROOT / "asterisk-config" / "render.py"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.stem}_under_test", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


render = load(RENDERER)
environment = load(RENDERER.with_name("environment.py"))

SECRETS = {
    "ari_password": "ari-secret-word",
    "caller_password": "sip-secret-word",
    "browser_password": "web-secret-word",
}
REQUIRED = {"modules_dir": "/usr/lib/asterisk/modules"}
TRUNK = {
    "trunk_domain": "sip.example.com",
    "trunk_port": "5080",
    "trunk_transport": "tls",
    "trunk_proxy": "proxy.example.com:5081",
    "trunk_username": "49301234",
    "trunk_password": "trunk-secret-word",
    "trunk_auth_username": "account",
    "trunk_peers": "192.0.2.0/24,edge.example.com",
    "trunk_srtp": "sdes",
    "external_address": "198.51.100.7",
    "local_nets": "192.168.0.0/16",
}
REST = {"fallback_extension": "600", "away_sound": "/sounds/away", "browser_phone": "yes"}
GOOD = {**REQUIRED, **SECRETS, **TRUNK, **REST}
"""Every setting that has no default of its own, so that every line of the templates is rendered."""


def parse(text: str) -> list[tuple[str, str, str]]:
    """(section, key, value) of each line, by the rules of Asterisk's main/config.c for plain lines."""
    found: list[tuple[str, str, str]] = []
    section = ""
    for line in text.split("\n"):
        code = ""
        position = 0
        while position < len(line):
            if line[position] == "\\" and line[position + 1 : position + 2] == ";":
                code += ";"
                position += 2
            elif line[position] == ";":
                break
            else:
                code += line[position]
                position += 1
        code = code.strip()
        if not code:
            continue
        if code.startswith("["):
            section = code
            found.append((section, "", ""))
        elif code.startswith("#"):
            found.append((section, "#", code))
        else:
            key, equals, value = code.partition("=")
            assert equals, f"Asterisk would refuse the line {line!r}"
            found.append((section, key.strip(), value.removeprefix(">").strip()))
    return found


def all_templates() -> dict[str, str]:
    return {path.name: path.read_text() for path in render.TEMPLATES.glob("*.conf")}


def fill_all(values: dict[str, str]) -> dict[str, list[tuple[str, str, str]]]:
    folders = {"config_dir": "/etc/asterisk", "credentials_dir": "/etc/asterisk/credentials"}
    placed = {**values, **render.compute(values), **folders}
    return {name: parse(render.fill(name, text, placed)) for name, text in all_templates().items()}


def test_each_setting_is_used_and_each_placeholder_is_a_setting() -> None:
    found = {name for text in all_templates().values() for name in re.findall(r"\{\{(.*?)\}\}", text)}
    used = {name.removeprefix("when ") for name in found - {"end"}}
    # These reach the templates by what is computed from them.
    indirect = {"trunk_port", "trunk_proxy", "trunk_auth_username", "trunk_register"}
    assert used == set(render.SETTINGS) - indirect - {"trunk_srtp", "log_format", "browser_phone"} | set(
        render.COMPUTED
    )


def test_an_unknown_placeholder_is_an_error() -> None:
    with pytest.raises(render.SettingError, match="x.conf asks for nonsense"):
        render.fill("x.conf", "a = {{nonsense}}", {"sense": "1"})


@pytest.mark.parametrize("template", ["a = {{ sense }}", "a = {{sense}", "a = {{Sense}}", "a = {{}}"])
def test_a_malformed_placeholder_is_an_error(template: str) -> None:
    with pytest.raises(render.SettingError, match="malformed"):
        render.fill("x.conf", template, {"sense": "1"})


def test_dialplan_expressions_are_left_alone() -> None:
    line = 'same => n,GotoIf($["${A${B}}" = "1"]?x)'
    assert render.fill("x.conf", line, {}) == line


def test_a_value_is_not_searched_for_placeholders() -> None:
    assert render.fill("x.conf", "{{a}}", {"a": "{{b}}", "b": "secret"}) == "{{b}}"


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(render.SettingError, match="^sip_prot is not a setting"):
        render.resolve({**GOOD, "sip_prot": "5060"}, {})


def test_a_missing_setting_is_an_error() -> None:
    with pytest.raises(render.SettingError, match="^modules_dir must be given"):
        render.resolve(SECRETS, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http_address", "0.0.0.0"),
        ("http_address", "8.8.8.8"),
        ("http_address", "localhost"),
        ("http_address", "::"),
        ("http_port", "0"),
        ("http_port", "65536"),
        ("http_port", "80x"),
        ("http_port", "８０"),
        ("media_address", "0.0.0.0"),
        ("bot_extension", ""),
        ("bot_extension", "_X."),
        ("bot_extension", "s"),
        ("bot_extension", "100,1,System(x)"),
        ("fallback_extension", "100"),
        ("fallback_extension", "${SHELL(id)}"),
        ("app_name", "a,b"),
        ("app_name", "a)"),
        ("ari_username", "x]"),
        ("ari_password", "short"),
        ("ari_password", "with a space in it"),
        ("trunk_domain", "host;transport=tcp"),
        ("trunk_domain", "user@host"),
        ("trunk_domain", "host:5060"),
        ("trunk_port", "sip"),
        ("trunk_transport", "TLS"),
        ("trunk_username", "user@host"),
        ("trunk_username", "user;x=1"),
        ("trunk_auth_username", 'a"b'),
        ("trunk_auth_username", "a\\b"),
        ("trunk_register", "maybe"),
        ("trunk_peers", "10.0.0.1,,10.0.0.2"),
        ("trunk_peers", "10.0.0.1 10.0.0.2"),
        ("trunk_peers", "192.0.2.0/28,1.2.3.4/99"),
        ("trunk_peers", "999.1.1.1"),
        ("trunk_peers", "0.0.0.0/0"),
        ("trunk_peers", "0.0.0.0/8"),
        ("trunk_domain", "a..b"),
        ("trunk_proxy", "h:99999"),
        ("external_address", "192.168.1.300"),
        ("sip_port", "10050"),
        ("trunk_srtp", "dtls"),
        ("trunk_codecs", "ulaw,opus"),
        ("local_nets", "10.0.0.1/8"),
        ("external_address", "0.0.0.0/0"),
        ("log_format", "xml"),
        ("away_sound", "relative/path"),
        ("away_sound", "/sounds/away.wav"),
        ("away_sound", "/sounds/away&/etc/other"),
        ("modules_dir", "relative"),
        ("rtp_end", "9999"),
    ],
)
def test_values_that_are_refused(name: str, value: str) -> None:
    with pytest.raises(render.SettingError) as caught:
        render.resolve({**GOOD, name: value}, {})
    sentence = str(caught.value)
    assert sentence.startswith(f"{name} must ")
    assert "\n" not in sentence


@pytest.mark.parametrize("name", sorted(render.SETTINGS))
@pytest.mark.parametrize(
    "tail", ["\n", "\r", "\x00", "\x0b", "\x85", "\u2028", "\nexec = x", "\r\n[other]", " "]
)
def test_no_setting_takes_a_second_line(name: str, tail: str) -> None:
    value = GOOD.get(name) or render.SETTINGS[name].default or "100200"
    with pytest.raises(render.SettingError, match=f"^{name} must "):
        render.resolve({**GOOD, name: value + tail}, {})


@given(name=st.sampled_from(sorted(render.SETTINGS)), value=st.text(max_size=30))
def test_any_value_is_refused_or_stays_one_value(name: str, value: str) -> None:
    check_value(name, value)


# Text that fits most checks but for the characters that mean something to Asterisk.
TRICKY = st.text(alphabet="/aB0;\\-#[]=>{}$(),&\"'!_.:@ \t\n", min_size=1, max_size=40)


@given(name=st.sampled_from(sorted(render.SETTINGS)), value=TRICKY)
def test_tricky_values_are_refused_or_stay_one_value(name: str, value: str) -> None:
    check_value(name, value)


@given(
    password=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40)
)
def test_any_printable_password_arrives_unchanged(password: str) -> None:
    values = render.resolve({**GOOD, "ari_password": password}, {})
    ari = fill_all(values)["ari.conf"]
    assert ("[ari_app]", "password", password) in ari


OTHERS = ("fallback_extension", "rtp_end", "trunk_")
"""What a sentence may name when the fault is in two settings together."""
SWITCHES = {"trunk_transport", "trunk_register", "trunk_srtp"}
"""Each decides about whole lines, and takes a handful of values."""


def check_value(name: str, value: str) -> None:
    """Compare with a rendering of a harmless value: same sections, same keys, and only this value differs."""
    try:
        values = render.resolve({**GOOD, name: value}, {})
    except render.SettingError as error:
        assert str(error).startswith((name, *OTHERS))
        return
    if not value or name in SWITCHES:
        return
    marks = fill_all(render.resolve(GOOD, {}))
    for file, lines in fill_all(values).items():
        assert len(lines) == len(marks[file])
        for line, model in zip(lines, marks[file], strict=True):
            assert line == model or value in "".join(line) or name == "sip_port"  # tls_port is one more
            assert line[:1] == model[:1] or name in ("ari_username", "bot_extension")


def test_files_are_for_this_user_only(tmp_path: Path) -> None:
    out = tmp_path / "etc"
    out.mkdir(mode=0o755)
    (out / "ari.conf").write_text("old")
    (out / "ari.conf").chmod(0o644)
    render.render(out, {**REQUIRED, "state_dir": str(tmp_path / "state")})
    for path in [out, *out.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert {path.name for path in out.glob("*.conf")} == set(all_templates())


def test_passwords_are_generated_once_and_differ(tmp_path: Path) -> None:
    def once(name: str) -> dict[str, str]:
        given = {**REQUIRED, "state_dir": str(tmp_path / name / "state")}
        values = render.render(tmp_path / name / "etc", given)
        return {key: values[key] for key in SECRETS}

    first = once("one")
    assert once("one") == first
    everything = [*first.values(), *once("two").values()]
    assert len(set(everything)) == 6
    assert min(map(len, everything)) >= 32
    assert (tmp_path / "one/etc/credentials/ari_password").read_text().strip() == first["ari_password"]


def test_a_password_is_only_where_asterisk_needs_it(tmp_path: Path) -> None:
    out = tmp_path / "etc"
    given = {**REQUIRED, "state_dir": str(tmp_path / "state"), "browser_phone": "yes"}
    values = render.render(out, given)
    homes = {"ari_password": "ari.conf", "caller_password": "pjsip.conf", "browser_password": "pjsip.conf"}
    for secret, home in homes.items():
        holders = {
            path.name for path in out.rglob("*") if path.is_file() and values[secret] in path.read_text()
        }
        assert holders == {home, secret}


def test_a_damaged_password_file_is_named_not_used(tmp_path: Path) -> None:
    (tmp_path / "etc/credentials").mkdir(parents=True)
    (tmp_path / "etc/credentials/ari_password").write_text("")
    with pytest.raises(render.SettingError, match="^ari_password must be 12 to 128"):
        render.render(tmp_path / "etc", {**REQUIRED, "state_dir": str(tmp_path / "state")})
    assert not (tmp_path / "etc/ari.conf").exists()


def test_no_template_holds_a_password_or_opens_a_door() -> None:
    plain = {name: re.sub(r"(?m)^\{\{(when .*|end)\}\}$", "", text) for name, text in all_templates().items()}
    lines = {name: parse(text) for name, text in plain.items()}
    keys = [(name, key, value) for name, found in lines.items() for _, key, value in found]
    assert {value for _, key, value in keys if "password" in key} == {
        "plain",  # password_format
        "{{ari_password}}",
        "{{caller_password}}",
        "{{browser_password}}",
        "{{trunk_password}}",
    }
    assert not [key for key in keys if key[1] == "allowed_origins"]
    assert ("modules.conf", "autoload", "no") in keys
    loaded = {value for name, key, value in keys if name == "modules.conf" and key == "load"}
    assert "res_pjsip_endpoint_identifier_anonymous.so" not in loaded
    assert not {module for module in loaded if module.startswith(("res_agi", "func_shell", "app_system"))}


def test_no_extension_leads_to_the_trunk() -> None:
    steps = [value for _, _, value in parse(all_templates()["extensions.conf"])]
    assert any("Stasis(" in step for step in steps)
    assert [step for step in steps if re.search(r"\bDial\(|trunk\)|Originate|System\(|Local/", step)] == []


def test_the_operators_own_extensions_stay(tmp_path: Path) -> None:
    out = tmp_path / "etc"
    out.mkdir()
    (out / "extensions_local.conf").write_text("exten => 600,1,Hangup()\n")
    render.render(out, {**REQUIRED, "state_dir": str(tmp_path / "state")})
    assert (out / "extensions_local.conf").read_text() == "exten => 600,1,Hangup()\n"


# --- conditions


def test_a_condition_keeps_or_drops_its_lines() -> None:
    template = "a = 1\n{{when x}}\nb = {{x}}\n{{end}}\nc = 2"
    assert render.fill("f", template, {"x": "yes"}) == "a = 1\nb = yes\nc = 2"
    assert render.fill("f", template, {"x": ""}) == "a = 1\nc = 2"


@pytest.mark.parametrize("template", ["{{when x}}", "{{end}}", "{{when x}}\n{{when x}}\n{{end}}\n{{end}}"])
def test_a_condition_that_is_not_closed_is_an_error(template: str) -> None:
    with pytest.raises(render.SettingError, match=r"\{\{when\}\}"):
        render.fill("f", template, {"x": "yes"})


def test_a_line_of_nothing_but_an_empty_setting_falls_away() -> None:
    assert render.fill("f", "key = {{x}}\nkey = a{{x}}\n", {"x": ""}) == "key = a\n"


# --- the trunk


def trunk_lines(tmp_path: Path, **given: str) -> list[tuple[str, str, str]]:
    render.render(tmp_path / "etc", {**REQUIRED, "state_dir": str(tmp_path / "state"), **given})
    return [line for line in parse((tmp_path / "etc/pjsip.conf").read_text()) if "trunk" in "".join(line)]


def test_without_a_domain_there_is_no_way_out(tmp_path: Path) -> None:
    assert trunk_lines(tmp_path) == []


def test_a_peer_known_by_its_address(tmp_path: Path) -> None:
    lines = trunk_lines(tmp_path, trunk_domain="192.0.2.5", trunk_port="5999", trunk_peers="192.0.2.8/30")
    assert ("[trunk]", "contact", "sip:192.0.2.5:5999") in lines
    assert ("[trunk]", "match", "192.0.2.5") in lines
    assert ("[trunk-peers]", "match", "192.0.2.8/30") in lines
    # Or anyone could call as the trunk by claiming its name.
    assert ("[trunk](endpoint-common)", "identify_by", "ip") in lines
    assert not {key for _, key, _ in lines} & {"password", "client_uri", "outbound_auth", "from_user"}


def test_an_account_that_is_registered_over_tls(tmp_path: Path) -> None:
    lines = trunk_lines(tmp_path, **TRUNK)
    assert ("[trunk]", "server_uri", "sip:sip.example.com:5080;transport=tls") in lines
    assert ("[trunk]", "client_uri", "sip:49301234@sip.example.com") in lines
    assert ("[trunk]", "outbound_proxy", "sip:proxy.example.com:5081;transport=tls;lr") in lines
    assert ("[trunk]", "username", "account") in lines
    assert ("[trunk]", "password", "trunk-secret-word") in lines
    assert ("[trunk](endpoint-common)", "media_encryption", "sdes") in lines
    assert ("[trunk](endpoint-common)", "transport", "transport-tls") in lines
    assert ("[trunk]", "match", "sip.example.com,proxy.example.com") in lines
    assert ("[trunk-peers]", "match", "192.0.2.0/24,edge.example.com") in lines


def test_an_account_that_is_not_registered_still_answers_challenges(tmp_path: Path) -> None:
    lines = trunk_lines(tmp_path, **{**TRUNK, "trunk_register": "no"})
    assert not [line for line in lines if line[1] == "client_uri"]
    assert ("[trunk](endpoint-common)", "outbound_auth", "trunk") in lines


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trunk_domain": ""}, "trunk_domain must be given"),
        ({"trunk_password": ""}, "trunk_password must be given"),
        ({"trunk_username": ""}, "trunk_username must be given"),
        ({"trunk_transport": "udp"}, "trunk_srtp must be no unless"),
    ],
)
def test_settings_of_the_trunk_that_do_not_go_together(change: dict[str, str], sentence: str) -> None:
    with pytest.raises(render.SettingError, match=f"^{sentence}"):
        render.resolve({**GOOD, **change}, {})


@given(password=st.text(alphabet="a;#\\\"'[]=>$ {}|", min_size=1, max_size=20))
def test_any_trunk_password_arrives_unchanged_or_is_refused(password: str) -> None:
    try:
        values = render.resolve({**GOOD, "trunk_password": password}, {})
    except render.SettingError:
        assert password != password.strip()
        return
    assert ("[trunk]", "password", password) in fill_all(values)["pjsip.conf"]


def run_alone(*args: str) -> subprocess.CompletedProcess[str]:
    """As in a container: no package but the standard library, none of ours."""
    command = [sys.executable, "-I", "-S", str(RENDERER), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_stands_alone(tmp_path: Path) -> None:
    settings = ["--set", "modules_dir=/m", "--set", f"state_dir={tmp_path}/state", "--set", "sip_port=5070"]
    done = run_alone("--out", str(tmp_path / "etc"), *settings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    bind = ("[transport-udp](transport-common)", "bind", "127.0.0.1:5070")
    assert bind in parse((tmp_path / "etc/pjsip.conf").read_text())


def test_the_command_line_refuses_in_one_sentence_without_the_value(tmp_path: Path) -> None:
    done = run_alone(
        "--out", str(tmp_path / "etc"), "--set", "modules_dir=/m", "--set", "ari_password=hunter2"
    )
    assert done.returncode == 2
    assert done.stderr == "ari_password must be 12 to 128 printable ASCII characters without spaces\n"
    assert not (tmp_path / "etc").exists()


# --- the variables of .env


def from_environment(out: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(RENDERER), "--out", str(out / "etc"), "--from-environment"]
    command += ["--set", "modules_dir=/m", "--set", f"state_dir={out}/state"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)


def test_a_trunk_from_the_environment(tmp_path: Path) -> None:
    nasty = "p;a\"s#s\\w$o'r d"
    done = from_environment(
        tmp_path,
        SIP_DOMAIN="sip.example.com",
        SIP_USERNAME="49301234",
        SIP_PASSWORD=nasty,
        SIP_TRANSPORT="TCP",
        SIP_PORT="",
        SIP_CODECS="alaw, ulaw",
        SIP_RTP_PORTS="20000-20099",
        EXTERNAL_ADDRESS="198.51.100.7",
        LOCAL_NETS="10.0.0.0/8, 192.168.0.0/16",
        BOT_EXTENSION="700",
        ARI_APP="bot",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pjsip = parse((tmp_path / "etc/pjsip.conf").read_text())
    assert ("[trunk]", "password", nasty) in pjsip
    assert ("[trunk]", "server_uri", "sip:sip.example.com;transport=tcp") in pjsip
    assert ("[trunk]", "contact_user", "700") in pjsip
    assert ("[trunk](endpoint-common)", "allow", "alaw,ulaw") in pjsip
    assert ("[transport-common](!)", "local_net", "10.0.0.0/8,192.168.0.0/16") in pjsip
    rtp = parse((tmp_path / "etc/rtp.conf").read_text())
    assert {("[general]", "rtpstart", "20000"), ("[general]", "rtpend", "20099")} <= set(rtp)
    assert "Stasis(bot," in (tmp_path / "etc/extensions.conf").read_text()


def test_the_trunks_password_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sip"
    trunk = {"SIP_DOMAIN": "sip.example.com", "SIP_USERNAME": "bob", "SIP_PASSWORD_FILE": str(path)}
    assert "SIP_PASSWORD_FILE" in from_environment(tmp_path, **trunk).stderr, "it is not there"
    path.write_text("\n")
    assert "is empty" in from_environment(tmp_path, **trunk).stderr
    path.write_text("fr0m a file\nand a note\n")
    both = from_environment(tmp_path, **trunk, SIP_PASSWORD="x")
    assert "both set" in both.stderr and both.returncode != 0
    assert from_environment(tmp_path, **trunk).returncode == 0
    assert "password = fr0m a file\n" in (tmp_path / "etc" / "pjsip.conf").read_text()


def test_an_empty_environment_has_no_trunk(tmp_path: Path) -> None:
    done = from_environment(tmp_path, SIP_DOMAIN="", SIP_PASSWORD="", STUN_SERVER="")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[trunk]" not in (tmp_path / "etc/pjsip.conf").read_text()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"SIP_DOMAIN": "sip.example.com:5060"}, "SIP_DOMAIN must be a host name or IPv4 address"),
        ({"SIP_USERNAME": "bob"}, "SIP_DOMAIN must be given"),
        ({"SIP_DOMAIN": "a.b", "SIP_USERNAME": "bob"}, "SIP_PASSWORD must be given"),
        (
            {"SIP_DOMAIN": "a.b", "SIP_USERNAME": "b", "SIP_PASSWORD": "x\n[y]"},
            "SIP_PASSWORD must be on one line",
        ),
        ({"SIP_RTP_PORTS": "10000"}, "SIP_RTP_PORTS must be two ports"),
        ({"SIP_RTP_PORTS": "10000-9000"}, "SIP_RTP_PORTS must be two ports"),
        ({"BOT_EXTENSION": "bot"}, "BOT_EXTENSION must be an extension"),
        ({"EXTERNAL_ADDRESS": "my house"}, "EXTERNAL_ADDRESS must be"),
        ({"LOCAL_NETS": "192.168.0.0/33"}, "LOCAL_NETS must be IPv4 networks"),
        ({"STUN_SERVER": "127.0.0.1:9"}, "STUN_SERVER can't be asked (Connection refused)"),
        ({"STUN_SERVER": "host:port"}, "STUN_SERVER must be a host"),
    ],
)
def test_a_wrong_variable_is_named_in_one_sentence(
    variables: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    done = from_environment(tmp_path, **variables)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "etc/pjsip.conf").exists()


# 203.0.113.7 in XOR-MAPPED-ADDRESS: each byte of the address xor the magic cookie's (RFC 8489, section 14.2).
XOR_203_0_113_7 = bytes((203 ^ 0x21, 0 ^ 0x12, 113 ^ 0xA4, 7 ^ 0x42))


def stun_answer(request: bytes) -> bytes:
    """With an attribute of odd length before the one that matters (software, RFC 8489, section 14.14)."""
    software = b"\x80\x22\x00\x05" + b"probe" + b"\0\0\0"
    address = b"\x00\x20\x00\x08\x00\x01\x30\x39" + XOR_203_0_113_7
    body = software + address
    return b"\x01\x01" + len(body).to_bytes(2, "big") + request[4:20] + body


def test_the_outside_address_comes_from_the_stun_server(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        asking = threading.Thread(target=lambda: answer_once(server))
        asking.start()
        done = from_environment(tmp_path, STUN_SERVER=f"127.0.0.1:{server.getsockname()[1]}")
        asking.join()
    assert (done.returncode, done.stderr) == (0, "")
    lines = parse((tmp_path / "etc/pjsip.conf").read_text())
    common = "[transport-common](!)"
    assert (common, "external_media_address", "203.0.113.7") in lines
    assert (common, "external_signaling_address", "203.0.113.7") in lines


def answer_once(server: socket.socket) -> None:
    request, address = server.recvfrom(2048)
    assert request[:8] == b"\x00\x01\x00\x00\x21\x12\xa4\x42"
    server.sendto(b"\x01\x01 somebody else's", address)
    request, address = server.recvfrom(2048)
    server.sendto(stun_answer(request), address)


@given(data=st.binary(max_size=80))
def test_any_stun_answer_is_an_address_or_nothing(data: bytes) -> None:
    transaction_id = bytes(12)
    header = b"\x01\x01" + len(data).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + transaction_id
    for answer in (data, header + data):
        found = environment.mapped_address(answer, transaction_id)
        assert found is None or ipaddress.IPv4Address(found)


def test_networks_without_a_gateway_are_local() -> None:
    # proc(5): destination, gateway and mask are the address's bytes as one number of this host's order.
    def column(address: str) -> str:
        return f"{int.from_bytes(ipaddress.IPv4Address(address).packed, sys.byteorder):08X}"

    rows = [("0.0.0.0", "172.18.0.1", "0.0.0.0"), ("172.18.0.0", "0.0.0.0", "255.255.0.0")]
    lines = ["Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"]
    lines += [f"eth0\t{column(d)}\t{column(g)}\t0001\t0\t0\t0\t{column(m)}\t0\t0\t0" for d, g, m in rows]
    assert environment.on_link_networks("\n".join(lines) + "\n") == ["172.18.0.0/16"]


def test_authorities_that_are_not_there_are_refused_for_a_tls_trunk_only(tmp_path: Path) -> None:
    given = {**REQUIRED, "state_dir": str(tmp_path / "state"), "trunk_ca_file": "/nonexistent/ca.pem"}
    given["trunk_domain"] = "sip.example.com"
    render.render(tmp_path / "etc", given)
    with pytest.raises(render.SettingError, match="trunk_ca_file must be a file"):
        render.render(tmp_path / "etc", {**given, "trunk_transport": "tls"})


def test_a_stun_server_with_a_port_that_is_none() -> None:
    with pytest.raises(ValueError, match="STUN_SERVER must be"):
        environment.outside_address("localhost:99999")

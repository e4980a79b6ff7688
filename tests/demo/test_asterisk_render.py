"""The configuration templates: strict placeholders, no value is more than a value, no file is for others."""

from __future__ import annotations

import importlib.util
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
RENDERER = ROOT / "asterisk-config" / "render.py"

spec = importlib.util.spec_from_file_location("render_under_test", RENDERER)
assert spec is not None
assert spec.loader is not None
render = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = render
spec.loader.exec_module(render)

SECRETS = {"ari_password": "ari-secret-word", "caller_password": "sip-secret-word"}
REQUIRED = {"modules_dir": "/usr/lib/asterisk/modules"}
GOOD = {**REQUIRED, **SECRETS}


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
    placed = {**values, "config_dir": "/etc/asterisk", "credentials_dir": "/etc/asterisk/credentials"}
    return {name: parse(render.fill(name, text, placed)) for name, text in all_templates().items()}


def test_each_setting_is_used_and_each_placeholder_is_a_setting() -> None:
    used = {name for text in all_templates().values() for name in re.findall(r"\{\{(.*?)\}\}", text)}
    assert used == set(render.SETTINGS) | set(render.COMPUTED)


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
        ("outbound_contact", "host;transport=tcp"),
        ("outbound_contact", "user@host"),
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


def check_value(name: str, value: str) -> None:
    """Compare with a rendering of a harmless value: same sections, same keys, and only this value differs."""
    marks = {key: setting.default or GOOD.get(key) or "" for key, setting in render.SETTINGS.items()}
    try:
        values = render.resolve({**GOOD, name: value}, {})
    except render.SettingError as error:
        assert str(error).startswith((name, "fallback_extension", "rtp_end"))
        return
    for file, lines in fill_all(values).items():
        plain = fill_all(marks)[file]
        assert len(lines) == len(plain)
        for line, model in zip(lines, plain, strict=True):
            assert line == model or value in "".join(line)
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
    assert len(set(everything)) == 4
    assert min(map(len, everything)) >= 32
    assert (tmp_path / "one/etc/credentials/ari_password").read_text().strip() == first["ari_password"]


def test_a_password_is_only_where_asterisk_needs_it(tmp_path: Path) -> None:
    out = tmp_path / "etc"
    values = render.render(out, {**REQUIRED, "state_dir": str(tmp_path / "state")})
    for secret, home in (("ari_password", "ari.conf"), ("caller_password", "pjsip.conf")):
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
    lines = {name: parse(text) for name, text in all_templates().items()}
    keys = [(name, key, value) for name, found in lines.items() for _, key, value in found]
    assert {value for _, key, value in keys if "password" in key} == {
        "plain",  # password_format
        "{{ari_password}}",
        "{{caller_password}}",
    }
    assert not [key for key in keys if key[1] == "allowed_origins"]
    assert ("modules.conf", "autoload", "no") in keys
    loaded = {value for name, key, value in keys if name == "modules.conf" and key == "load"}
    assert "res_pjsip_endpoint_identifier_anonymous.so" not in loaded
    assert not {module for module in loaded if module.startswith(("res_agi", "func_shell", "app_system"))}


def test_no_extension_leads_to_the_trunk() -> None:
    steps = [value for _, _, value in parse(all_templates()["extensions.conf"])]
    assert any("Stasis(" in step for step in steps)
    assert [step for step in steps if re.search(r"\bDial\(|outbound|Originate|System\(|Local/", step)] == []


def test_the_operators_own_extensions_stay(tmp_path: Path) -> None:
    out = tmp_path / "etc"
    out.mkdir()
    (out / "extensions_local.conf").write_text("exten => 600,1,Hangup()\n")
    render.render(out, {**REQUIRED, "state_dir": str(tmp_path / "state")})
    assert (out / "extensions_local.conf").read_text() == "exten => 600,1,Hangup()\n"


def test_without_outbound_contact_there_is_no_way_out(tmp_path: Path) -> None:
    given = {**REQUIRED, "state_dir": str(tmp_path / "state")}
    render.render(tmp_path / "etc", given)
    assert parse((tmp_path / "etc/pjsip_outbound.conf").read_text()) == []
    render.render(tmp_path / "etc", {**given, "outbound_contact": "127.0.0.1:5999"})
    lines = parse((tmp_path / "etc/pjsip_outbound.conf").read_text())
    assert ("[outbound]", "contact", "sip:127.0.0.1:5999") in lines
    # Or anyone could call as the trunk by claiming its name.
    assert ("[outbound](endpoint-common)", "identify_by", "ip") in lines


def run_alone(*args: str) -> subprocess.CompletedProcess[str]:
    """As in a container: no package but the standard library, none of ours."""
    command = [sys.executable, "-I", "-S", str(RENDERER), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_stands_alone(tmp_path: Path) -> None:
    settings = ["--set", "modules_dir=/m", "--set", f"state_dir={tmp_path}/state", "--set", "sip_port=5070"]
    done = run_alone("--out", str(tmp_path / "etc"), *settings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    bind = ("[transport-udp]", "bind", "127.0.0.1:5070")
    assert bind in parse((tmp_path / "etc/pjsip.conf").read_text())


def test_the_command_line_refuses_in_one_sentence_without_the_value(tmp_path: Path) -> None:
    done = run_alone(
        "--out", str(tmp_path / "etc"), "--set", "modules_dir=/m", "--set", "ari_password=hunter2"
    )
    assert done.returncode == 2
    assert done.stderr == "ari_password must be 12 to 128 printable ASCII characters without spaces\n"
    assert not (tmp_path / "etc").exists()

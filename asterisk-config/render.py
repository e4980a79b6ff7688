#!/usr/bin/env python3
"""Renders the Asterisk configuration from `templates/`: one set for the private Asterisk and for containers.

    python3 asterisk-config/render.py --out DIR --set modules_dir=/usr/lib/... [--set KEY=VALUE ...]
    python3 asterisk-config/render.py --out DIR --from-environment     (SIP_DOMAIN and the others, see environment.py)

Standard library only, because it also runs where nothing else is installed. A template holds {{setting}}
placeholders; lines between {{when setting}} and {{end}} stay when that setting is not empty, and a line that is
only `key = {{setting}}` falls away when it is. Passwords that nobody gave are generated once and kept in
DIR/credentials.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent / "templates"

STATE_FOLDERS = ("lib", "run", "log", "spool/recording")
"""Asterisk does not make these itself; without spool/recording ARI recordings fail."""

_PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}")
_CONDITION = re.compile(r"\{\{(?:when ([a-z_]+)|end)\}\}")
_PLAIN_LINE = re.compile(r"[A-Za-z_]+ = \{\{([a-z_]+)\}\}")


class SettingError(ValueError):
    """A setting is missing, unknown or not acceptable; the text is one sentence that names it.

    Args:
        name: of the setting; empty when the fault is none of a single one.
        fault: what goes on from the name, e.g. "must be a port".
    """

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(f"{name} {fault}".lstrip())
        self.name = name
        self.fault = fault


# --- what a value may be: each check returns what is wrong with it, or "" ----------------------------------

SHORTEST_PREFIX = 9
Check = Callable[[str], str]


def _matches(pattern: str, what: str) -> Check:
    return lambda value: "" if re.fullmatch(pattern, value, re.ASCII) else f"must be {what}"


def _port(value: str) -> str:
    fits = re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) and 1 <= int(value) <= 65535
    return "" if fits else "must be a port from 1 to 65535"


def _ipv4(value: str) -> str:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return "must be an IPv4 address"
    return ""


def _private_ipv4(value: str) -> str:
    fault = _ipv4(value)
    if not fault:
        address = ipaddress.IPv4Address(value)
        if address.is_unspecified or not address.is_private:
            fault = "must be a loopback or private address, because ARI is not for the open network"
    return fault


def _one_address(value: str) -> str:
    fault = _ipv4(value)
    if not fault and ipaddress.IPv4Address(value).is_unspecified:
        fault = "must be one address of this machine, because callers are told to send their audio there"
    return fault


def _each(check: Check) -> Check:
    """For a list with commas."""
    return lambda value: next((fault for part in value.split(",") if (fault := check(part))), "")


def _one_of(*choices: str) -> Check:
    return lambda value: "" if value in choices else f"must be {', '.join(choices[:-1])} or {choices[-1]}"


def _network(value: str) -> str:
    try:
        ipaddress.IPv4Network(value)
    except ValueError:
        return "must be IPv4 networks such as 192.168.1.0/24, with commas between them"
    return ""


_folder = _matches(r"/[^\x00-\x1f\x7f]*", "an absolute path")
_name = _matches(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits, '_', '.' or '-'")
_extension = _matches(
    r"[0-9+*#][0-9A-Za-z+*#]{0,31}",
    "an extension: 1 to 32 digits, letters, '+', '*' or '#', the first not a letter",
)
_password = _matches(r"[!-~]{12,128}", "12 to 128 printable ASCII characters without spaces")
_HOST = r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}"
_labels = _matches(_HOST, "a host name or IPv4 address, without a port")


def _host(value: str) -> str:
    looks_like_an_address = re.fullmatch(r"[0-9.]+", value) is not None
    if ".." in value or value.endswith(".-") or (looks_like_an_address and _ipv4(value)):
        return "must be a host name or IPv4 address, without a port"
    return _labels(value)


def _host_and_port(value: str) -> str:
    host, colon, port = value.partition(":")
    return "must be a host or host:port" if _host(host) or (colon and _port(port)) else ""


def _peer(value: str) -> str:
    """A host, or a network that is a provider's: nobody's reaches over a whole /8 of the internet."""
    host, slash, prefix = value.partition("/")
    if not slash:
        return _host(value) and "must be host names, addresses or networks, with commas between them"
    if _network(value):
        return "must be host names, addresses or networks such as 192.0.2.0/28, with commas between them"
    if int(prefix) < SHORTEST_PREFIX:
        return f"must not hold a network larger than /{SHORTEST_PREFIX}: whoever is in it may call in as the trunk"
    return ""


# RFC 3261, section 25.1: what may stand in the user part of a SIP URI as it is; ";" would begin a parameter.
_sip_user = _matches(
    r"[A-Za-z0-9_.!~*'()&=+$,?/-]{1,64}",
    "the user part of the SIP account: letters, digits and _.!~*'()&=+$,?/- without '@domain'",
)
_auth_user = _matches(r'[^"\\\x00-\x1f\x7f]{1,128}', "up to 128 characters without quotes and backslashes")
_trunk_password = _matches(r"[^\x00-\x1f\x7f]{1,128}", "up to 128 characters")
_sound = _matches(
    r"/[A-Za-z0-9_./ -]*[A-Za-z0-9_-]",
    "an absolute path of letters, digits, spaces, '_', '.', '/' and '-'",
)


def _sound_without_suffix(value: str) -> str:
    return "must not end in .wav: Asterisk adds the suffix" if value.endswith(".wav") else _sound(value)


def _or_empty(check: Check) -> Check:
    return lambda value: check(value) if value else ""


@dataclass(frozen=True)
class Setting:
    """One placeholder. `default` None: it must be given, or (for a secret) is generated."""

    check: Check
    meaning: str
    default: str | None = None
    secret: bool = False


SETTINGS: Mapping[str, Setting] = {
    "modules_dir": Setting(_folder, "folder of Asterisk's modules (*.so)"),
    "data_dir": Setting(_folder, "folder of Asterisk's documentation and rest-api", "/usr/share/asterisk"),
    "state_dir": Setting(
        _folder, "folder for logs, run-time files and recordings", "/var/lib/ari_app-asterisk"
    ),
    "http_address": Setting(_private_ipv4, "address ARI listens on", "127.0.0.1"),
    "http_port": Setting(_port, "port ARI listens on", "8088"),
    "ari_username": Setting(_name, "ARI user", "ari_app"),
    "ari_password": Setting(_password, "ARI password", secret=True),
    "sip_address": Setting(_ipv4, "address SIP listens on", "127.0.0.1"),
    "sip_port": Setting(_port, "UDP port SIP listens on", "5060"),
    "media_address": Setting(_one_address, "address for the media of SIP calls", "127.0.0.1"),
    "caller_password": Setting(_password, "password of the SIP account demo-caller", secret=True),
    "browser_phone": Setting(_one_of("yes", "no"), "whether the console may have a telephone", "no"),
    "browser_password": Setting(_password, "password of the SIP account browser", secret=True),
    "external_address": Setting(_or_empty(_host), "our address as the outside sees it; empty: no NAT", ""),
    "local_nets": Setting(_or_empty(_each(_network)), "networks that reach us without NAT", ""),
    "trunk_domain": Setting(_or_empty(_host), "the trunk's host; empty: no trunk, no outbound calls", ""),
    "trunk_port": Setting(_or_empty(_port), "its port; empty: as DNS says, else 5060, 5061 for TLS", ""),
    "trunk_transport": Setting(_one_of("udp", "tcp", "tls"), "how to reach it", "udp"),
    "trunk_proxy": Setting(_or_empty(_host_and_port), "outbound proxy", ""),
    "trunk_username": Setting(_or_empty(_sip_user), "our account; empty: the trunk knows us by address", ""),
    "trunk_password": Setting(_or_empty(_trunk_password), "its password", ""),
    "trunk_auth_username": Setting(_or_empty(_auth_user), "if it differs from the account", ""),
    "trunk_register": Setting(_one_of("yes", "no"), "whether to register the account", "yes"),
    "trunk_peers": Setting(_or_empty(_each(_peer)), "who else may call in as the trunk", ""),
    "trunk_srtp": Setting(_one_of("no", "sdes"), "encrypt the media (RFC 4568)", "no"),
    "trunk_codecs": Setting(
        _each(_one_of("ulaw", "alaw", "g722")), "codecs in order of preference", "ulaw,alaw"
    ),
    "trunk_ca_file": Setting(
        _folder, "certificates that a TLS trunk may be signed by", "/etc/ssl/certs/ca-certificates.crt"
    ),
    "log_format": Setting(_one_of("text", "json"), "of the console's lines", "text"),
    "rtp_start": Setting(_port, "first UDP port for media", "10000"),
    "rtp_end": Setting(_port, "last UDP port for media", "20000"),
    "app_name": Setting(_name, "Stasis application that takes the calls", "ari_app"),
    "bot_extension": Setting(_extension, "extension of the bot", "100"),
    "fallback_extension": Setting(_or_empty(_extension), "extension that takes calls the bot cannot", ""),
    "away_sound": Setting(
        _or_empty(_sound_without_suffix), "sound file for when the application is away", ""
    ),
}

COMPUTED = (
    "config_dir",
    "credentials_dir",
    "trunk_uri",
    "trunk_account_uri",
    "trunk_proxy_uri",
    "trunk_match",
) + (
    *("trunk_auth", "trunk_auth_name", "trunk_registers", "trunk_tls", "trunk_encryption"),
    *("tls_port", "console_format", "browser_account", "ice_support"),
)
"""Placeholders that follow from --out and from other settings."""


def resolve(given: Mapping[str, str], credentials: Mapping[str, str]) -> dict[str, str]:
    """Every setting with its value, checked. Pure.

    Raises:
        SettingError: a setting is unknown, missing or not acceptable.
    """
    unknown = sorted(set(given) - set(SETTINGS))
    if unknown:
        raise SettingError(unknown[0], "is not a setting of the Asterisk configuration")
    values: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        value = given.get(name, credentials.get(name, setting.default))
        if value is None:
            raise SettingError(name, f"must be given: {setting.meaning}")
        # The value of a secret is not repeated in the sentence, nor is any other: it may hold anything.
        fault = _unsafe(value) or setting.check(value)
        if fault:
            raise SettingError(name, fault)
        values[name] = value
    _check_together(values)
    return values


def _check_together(values: Mapping[str, str]) -> None:
    if values["fallback_extension"] == values["bot_extension"]:
        raise SettingError(
            "fallback_extension", "must not be the bot's own extension, or such calls go in circles"
        )
    if int(values["rtp_start"]) >= int(values["rtp_end"]):
        raise SettingError("rtp_end", "must be higher than rtp_start")
    if int(values["rtp_start"]) <= int(values["sip_port"]) <= int(values["rtp_end"]):
        raise SettingError("sip_port", "must not be one of the ports for media")
    for name in ("trunk_username", "trunk_peers", "trunk_proxy"):
        if values[name] and not values["trunk_domain"]:
            raise SettingError("trunk_domain", "must be given, because other settings of the trunk are")
    if bool(values["trunk_username"]) != bool(values["trunk_password"]):
        missing = "trunk_password" if values["trunk_username"] else "trunk_username"
        raise SettingError(missing, "must be given: an account is a name and a password")
    if values["trunk_srtp"] == "sdes" and values["trunk_transport"] != "tls":
        raise SettingError(
            "trunk_srtp", "must be no unless the transport is tls: the keys would be sent readable"
        )


def compute(values: Mapping[str, str]) -> dict[str, str]:
    """The placeholders that follow from checked settings; an empty one switches its lines off. Pure."""
    domain, user, transport = values["trunk_domain"], values["trunk_username"], values["trunk_transport"]
    parameter = "" if transport == "udp" else f";transport={transport}"
    port = f":{values['trunk_port']}" if values["trunk_port"] else ""
    proxy = values["trunk_proxy"]
    hosts = [domain, proxy.partition(":")[0]]
    return {
        "trunk_uri": f"sip:{domain}{port}{parameter}",
        "trunk_account_uri": f"sip:{user}@{domain}",
        "trunk_proxy_uri": f"sip:{proxy}{parameter};lr" if proxy else "",
        "trunk_match": ",".join(dict.fromkeys(filter(None, hosts))),
        "trunk_auth": "trunk" if user else "",
        "trunk_auth_name": values["trunk_auth_username"] or user,
        "trunk_registers": "yes" if user and values["trunk_register"] == "yes" else "",
        "trunk_tls": "yes" if domain and transport == "tls" else "",
        "trunk_encryption": "sdes" if values["trunk_srtp"] == "sdes" else "",
        "tls_port": str(int(values["sip_port"]) % 65535 + 1),
        "browser_account": "browser" if values["browser_phone"] == "yes" else "",
        "ice_support": values["browser_phone"],
        "console_format": "[json]" if values["log_format"] == "json" else "",
    }


def _unsafe(value: str) -> str:
    """What would let a value be more than a value: it could add a line, or Asterisk would alter it."""
    if not value.isprintable():
        return "must be on one line, without control characters"
    return "must not begin or end with a space" if value != value.strip() else ""


def escape(value: str) -> str:
    """The value as a configuration file needs it: ';' begins a comment unless a backslash is before it."""
    return value.replace(";", "\\;")


def fill(name: str, template: str, values: Mapping[str, str]) -> str:
    """The template with its conditions decided and its placeholders replaced. Pure.

    Raises:
        SettingError: the template has a placeholder that is no setting, or a malformed one.
    """

    def value_of(setting: str) -> str:
        if setting not in values:
            raise SettingError(name, f"asks for {setting}, which is not a setting")
        return values[setting]

    lines: list[str] = []
    stays, is_open = True, False
    for line in template.split("\n"):
        condition = _CONDITION.fullmatch(line)
        if condition:
            if is_open == bool(condition[1]):
                raise SettingError(name, "has a {{when}} without its {{end}}, or the reverse")
            is_open = bool(condition[1])
            stays = not is_open or bool(value_of(condition[1]))
            continue
        if "{{" in _PLACEHOLDER.sub("", line):
            raise SettingError(name, "has a malformed placeholder")
        plain = _PLAIN_LINE.fullmatch(line)
        if stays and not (plain and not value_of(plain[1])):
            lines.append(_PLACEHOLDER.sub(lambda match: escape(value_of(match[1])), line))
    if is_open:
        raise SettingError(name, "has a {{when}} without its {{end}}")
    return "\n".join(lines)


# --- files -------------------------------------------------------------------------------------------------


def render(out: Path, given: Mapping[str, str], templates: Path = TEMPLATES) -> dict[str, str]:
    """Write the whole configuration to `out`, readable by this user only, and make Asterisk's state folders.

    Files in `out` that are not ours (such as extensions_local.conf) stay as they are.

    Returns:
        All settings with their values, passwords included.

    Raises:
        SettingError: see `resolve` and `fill`; nothing has been written then but generated passwords.
    """
    out = out.resolve()
    resolve(given, {name: "-" * 12 for name, setting in SETTINGS.items() if setting.secret})
    _make_private(out)
    credentials_dir = out / "credentials"
    values = resolve(given, _credentials(credentials_dir, given))
    fault = _unsafe(str(out))
    if fault:
        raise SettingError("--out", fault)
    if compute(values)["trunk_tls"]:
        _require_file("trunk_ca_file", values["trunk_ca_file"])
    folders = {"config_dir": str(out), "credentials_dir": str(credentials_dir)}
    placed = {**values, **compute(values), **folders}
    texts = {
        path.name: fill(path.name, path.read_text(encoding="utf-8"), placed)
        for path in sorted(templates.glob("*.conf"))
    }
    for name, text in texts.items():
        _write_private(out / name, text)
    for folder in STATE_FOLDERS:
        (Path(values["state_dir"]) / folder).mkdir(parents=True, exist_ok=True)
    os.chmod(values["state_dir"], 0o700)
    return values


def _require_file(name: str, path: str) -> None:
    if not Path(path).is_file():
        raise SettingError(
            name, "must be a file that Asterisk can read, such as /local/provider.pem in the container"
        )


def _credentials(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The passwords kept in `folder`, one file each; those that are neither kept nor given are generated."""
    _make_private(folder)
    kept: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        if not setting.secret or name in given:
            continue
        path = folder / name
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(24) + "\n")
        path.chmod(0o600)
        kept[name] = path.read_text(encoding="utf-8").removesuffix("\n")
    return kept


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def _write_private(path: Path, text: str) -> None:
    """Replace the file in one step; at no time can another user read it."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _parser() -> argparse.ArgumentParser:
    lines = [
        f"  {name:20} {setting.meaning}"
        + (f" (default {setting.default})" if setting.default else "")
        + (" (generated)" if setting.secret else "")
        for name, setting in SETTINGS.items()
    ]
    parser = argparse.ArgumentParser(
        description="Render the Asterisk configuration of ari_app.",
        epilog="settings:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the configuration to")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="one setting")
    parser.add_argument(
        "--from-environment", action="store_true", help="take the variables of .env; --set comes before them"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; ends with 2 and one sentence when a setting is wrong."""
    arguments = _parser().parse_args(argv)
    given: dict[str, str] = {}
    variables: Mapping[str, str] = {}
    try:
        if arguments.from_environment:
            sys.path.insert(0, str(TEMPLATES.parent))  # python -I does not do it by itself
            import environment

            variables = environment.VARIABLES
            given = environment.read(os.environ)
        for item in arguments.set:
            name, equals, value = item.partition("=")
            if not equals:
                raise SettingError("--set", "needs KEY=VALUE")
            given[name] = value
        render(arguments.out, given)
    except SettingError as error:
        # An operator knows the variable of .env, not the setting behind it.
        sys.stderr.write(f"{variables.get(error.name, error.name)} {error.fault}\n".lstrip())
        return 2
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

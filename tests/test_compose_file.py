"""docker-compose.yml beside what it must agree with; what it does is tested by scripts/containers."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from ari_app.settings import OTHER_NAMES

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"compose_file_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def environment_of(service: str) -> set[str]:
    block = re.search(rf"^  {service}:\n((?:    .*\n|\n)+)", COMPOSE, re.MULTILINE)
    assert block is not None
    names = re.search(r"^    environment:\n((?:      .*\n)+)", block[1], re.MULTILINE)
    assert names is not None
    return set(re.findall(r"^      ([A-Z_]+):", names[1], re.MULTILINE))


def test_asterisk_gets_each_variable_that_its_configuration_is_rendered_from() -> None:
    rendered_from = set(load(ROOT / "asterisk-config/environment.py").VARIABLES.values())
    assert environment_of("asterisk") == rendered_from | {
        *("STUN_SERVER", "LOG_FORMAT", "ARI_HOST", "SIP_PASSWORD_FILE")
    }


def test_asterisk_gets_no_key_and_the_application_no_password_of_the_trunk() -> None:
    assert not [name for name in environment_of("asterisk") if "KEY" in name]
    assert '      SIP_PASSWORD: ""\n' in COMPOSE


def test_the_variables_of_the_compose_file_are_known_settings() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE)) - {"DRAIN_SECONDS", "APT_OPTIONS"}
    assert used <= OTHER_NAMES


@pytest.mark.parametrize("image", ["asterisk", "app"])
def test_the_images_carry_the_version_of_the_project(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dockerfile = (ROOT / "containers" / image / "Dockerfile").read_text(encoding="utf-8")
    assert f"ARG VERSION={project['version']}\n" in dockerfile


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (
            " trunk/sip:203.0.113.5:5060                 trunk             Registered        (exp. 275s)\n",
            "Registered",
        ),
        (" trunk/sip:trunk.example.com;transport=tls   trunk             Unregistered\n", "Unregistered"),
        (" <Registration/ServerURI....>  <Auth....>  <Status.......>\n No objects found.\n", "none"),
        ("No objects found.\n", "none"),
        ("", "none"),
    ],
)
def test_the_state_of_the_registration_is_read_from_the_console(said: str, state: str) -> None:
    loader = importlib.util.spec_from_loader("asterisk_health", loader=None)
    assert loader is not None
    health = importlib.util.module_from_spec(loader)
    exec((ROOT / "containers/asterisk/health").read_text(encoding="utf-8"), health.__dict__)
    assert health.trunk_state(said) == state

"""What is in the images, and what is not."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from tests.containers.stack import IMAGES, ROOT, docker

USERS = {"ari_app-asterisk": "asterisk", "ari_app-app": "ari_app"}


def look(image: str, command: str) -> str:
    """What a command as root prints inside a container of the image."""
    return docker("run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", image, "-c", command)


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_tells_about_itself(image: str) -> None:
    about = json.loads(docker("image", "inspect", image))[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config = about["Config"]
    assert config["User"] == USERS[image]
    assert config["Labels"]["org.opencontainers.image.version"] == project["version"]
    assert config["Labels"]["org.opencontainers.image.title"].startswith("ari_app")
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert not config.get("ExposedPorts")
    print(f"{image}: {about['Size'] / 1e6:.0f} MB")  # noqa: T201, for the record


@pytest.mark.parametrize("image", IMAGES)
def test_no_compiler_no_caches_no_way_to_another_user(image: str) -> None:
    tools = "gcc cc c++ clang tcc make as ld pip pip3 git curl wget sudo"
    assert look(image, f"for tool in {tools}; do command -v $tool; done; true") == ""
    assert look(image, "find / -xdev -type f -perm /6000") == ""
    assert look(image, "find /var/lib/apt/lists /var/cache/apt /root -type f -name '*[!.]*' -size +64k") == ""
    assert look(image, "find / -xdev -name __pycache__ -path '*pip*' -prune -print") == ""
    assert look(image, "test -s /etc/ssl/certs/ca-certificates.crt && echo present").strip() == "present"


@pytest.mark.parametrize("image", IMAGES)
def test_no_secret_and_nothing_of_the_clone_but_the_program(image: str) -> None:
    assert look(image, "find /secrets /run/secrets /recordings /state -type f 2>/dev/null; true") == ""
    assert look(image, "find / -xdev -name .env -o -xdev -name .git -o -xdev -name pip.conf") == ""
    assert (
        look(
            image,
            r"find / -xdev -regex '.*/id_\(rsa\|dsa\|ecdsa\|ed25519\).*' -o -xdev -name '*.key' -type f -path '/etc/*'",
        )
        == ""
    )
    about = json.loads(docker("image", "inspect", image))[0]
    told = "\n".join(about["Config"]["Env"]) + docker(
        "history", "--no-trunc", "--format={{.CreatedBy}}", image
    )
    assert not re.search(r"(PASSWORD|API_KEY|TOKEN)=\S", told)


def test_asterisk_has_the_modules_that_it_loads_and_no_other() -> None:
    conf = (ROOT / "asterisk-config/templates/modules.conf").read_text()
    wanted = set(re.findall(r"^load = (\w+\.so)", conf, re.MULTILINE))
    assert set(look("ari_app-asterisk", "ls /usr/lib/asterisk-modules/").split()) == wanted


def test_the_demo_callers_voice_is_not_in_the_application() -> None:
    assert (
        look("ari_app-app", "ls -d /opt/ari_app/lib/python3*/site-packages/*piper* 2>/dev/null; true") == ""
    )

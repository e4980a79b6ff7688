"""A real Asterisk, a real SIP user agent, the embedded models, the application as a process of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from ari_app.backend import OfflineBackend
from ari_app.demo.asterisk import PrivateAsterisk
from ari_app.demo.asterisk_prefix import ASTERISK, Prefix, fetch
from ari_app.demo.baresip import BARESIP
from ari_app.demo.caller import SipCaller
from tests.e2e.applications import ServeProcess, keep_secret, passwords_of

log = logging.getLogger(__name__)

Serve = Callable[..., AbstractAsyncContextManager[ServeProcess]]
Caller = Callable[..., SipCaller]


@pytest.fixture(scope="session")
def asterisk_prefix() -> Prefix:
    return fetch(log.info, ASTERISK)


@pytest.fixture(scope="session")
def baresip_prefix() -> Prefix:
    return fetch(log.info, BARESIP)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend_url() -> AsyncIterator[str]:
    """The embedded models, loaded once for all tests."""
    async with OfflineBackend() as backend:
        yield backend.url


@pytest_asyncio.fixture
async def asterisk(asterisk_prefix: Prefix) -> AsyncIterator[PrivateAsterisk]:
    async with PrivateAsterisk(asterisk_prefix) as running:
        yield running
        said = running.log_path.read_text(errors="replace")
        assert not [secret for secret in passwords_of(running) if secret in said], (
            "a password is in Asterisk's log"
        )


def settings_for(asterisk: PrivateAsterisk, backend_url: str, recordings: Path) -> dict[str, str]:
    """The environment of an application that belongs to this Asterisk and uses these models."""
    keep_secret(*passwords_of(asterisk))
    key = {"OPENAI_API_KEY": "sk-of-the-tests-0123456789"} if backend_url else {}
    return key | {
        "ARI_URL": asterisk.ari_url,
        "ARI_USERNAME": asterisk.ari_user,
        "ARI_PASSWORD": asterisk.ari_password,
        "OPENAI_BASE_URL": backend_url,
        "DIAL_EXTENSION_DIGITS": "4",
        "SAVE_RECORDINGS": "yes",
        "RECORDINGS_DIR": str(recordings),
        "XDG_STATE_HOME": str(recordings.parent / "state"),
    }


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def serve(asterisk: PrivateAsterisk, backend_url: str, recordings: Path, tmp_path: Path) -> Serve:
    """`async with serve(GREETING="Hello") as process:` runs the application with these settings on top."""

    @asynccontextmanager
    async def start(**extra: str) -> AsyncIterator[ServeProcess]:
        settings = settings_for(asterisk, backend_url, recordings) | extra
        async with ServeProcess(settings, directory=tmp_path) as process:
            yield process

    return start


@pytest.fixture
def caller(asterisk: PrivateAsterisk, baresip_prefix: Prefix) -> Caller:
    """`async with caller() as ua:` is a softphone with an account on this Asterisk."""

    def make(**options: object) -> SipCaller:
        return SipCaller(
            server=(asterisk.sip_host, asterisk.sip_port),
            user=asterisk.caller_user,
            password=asterisk.caller_password,
            prefix=baresip_prefix,
            **options,  # type: ignore[arg-type]
        )

    return make

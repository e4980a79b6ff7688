"""All checks in the order of cause and effect; each finding is shown as soon as it is known. Shell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path

from ari_app.backend import OfflineBackend
from ari_app.check.asterisk import (
    ari_fault,
    check_application,
    check_ari,
    check_clock,
    check_endpoint,
    check_loop,
    check_registration,
    connected,
)
from ari_app.check.engines import check_engines
from ari_app.check.findings import EXIT_CONFIG, Finding, Level
from ari_app.check.host import check_dialling, check_disk, check_ports
from ari_app.config import Config, require_ari, require_keys
from ari_app.errors import AriError, ConfigError, SetupError

REG_TIMEOUT_S = 15.0


async def run_checks(
    config: Config,
    unknown: Sequence[str],
    *,
    environ: Mapping[str, str | None],
    state_dir: Path,
    today: date,
    reg_timeout_s: float | None,
    number: str | None = None,
) -> AsyncIterator[Finding]:
    """Look at everything; what one check needs and another found missing is left out.

    Args:
        unknown: sentences about names in `.env`.
        environ: settings that are not ours but of Asterisk's side, such as SIP_RTP_PORTS.
        reg_timeout_s: how long the trunk may take to register; None: SIP_REG_TIMEOUT.
        number: also say whether this one may be called.
    """
    for sentence in unknown:
        yield Finding("settings", Level.WARNING, sentence.rstrip("."))
    if not unknown:
        yield Finding("settings", Level.OK, f"all are understood; mode {config.mode}")
    for finding in check_ports(config, environ):
        yield finding
    yield check_disk(config)
    yield check_dialling(config, state_dir, number)
    if reg_timeout_s is None:
        timeout = environ.get("SIP_REG_TIMEOUT") or ""
        reg_timeout_s = float(timeout) if timeout.isdecimal() else REG_TIMEOUT_S
    async for finding in _check_asterisk(config, state_dir, reg_timeout_s):
        yield finding
    for finding in await _check_engines(config, today):
        yield finding


async def settings_fault(error: ConfigError) -> AsyncIterator[Finding]:
    """The settings can't be used, so nothing else is looked at."""
    text, remedy = str(error).rstrip("."), "correct it; nothing else was looked at"
    yield Finding("settings", Level.FAILED, text, remedy, exit_code=EXIT_CONFIG)


async def _check_asterisk(config: Config, state_dir: Path, reg_timeout_s: float) -> AsyncIterator[Finding]:
    try:
        require_ari(config)
    except ConfigError as error:
        yield Finding("asterisk", Level.FAILED, str(error).rstrip("."), exit_code=EXIT_CONFIG)
        return
    try:
        async with connected(config) as rest:
            yield await check_ari(rest, config)
            yield await check_clock(rest)
            yield await check_application(rest, config, state_dir)
            yield await check_endpoint(rest, config)
            yield await check_registration(rest, reg_timeout_s)
    except AriError as error:
        yield ari_fault("asterisk", error)
        return
    yield await check_loop(config, state_dir)


async def _check_engines(config: Config, today: date) -> list[Finding]:
    try:
        require_keys(config)
    except ConfigError as error:
        return [Finding("engines", Level.FAILED, str(error).rstrip("."), exit_code=EXIT_CONFIG)]
    if not config.stages(""):
        return [Finding("engines", Level.SKIPPED, f"mode {config.mode} needs none")]
    async with AsyncExitStack() as stack:
        offline_url = ""
        if config.needs_offline_backend:
            try:
                offline_url = (await stack.enter_async_context(OfflineBackend())).url
            except SetupError as error:
                return [Finding("engines", Level.FAILED, str(error).rstrip("."))]
        stages, fallbacks = config.stages(offline_url), config.fallbacks(offline_url)
        return await check_engines(config, stages, fallbacks, today)

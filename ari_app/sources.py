"""Where settings come from: flags, the environment, `.env`, files of secrets. Shell."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ari_app import parsers
from ari_app.config import Config, holds_secret, load, secret_paths, unknown_names
from ari_app.errors import ConfigError
from ari_app.prices import Prices, parse_prices
from ari_app.settings import SETTINGS

DOTENV = Path(".env")
LARGEST_FILE_BYTES = 64 * 1024


def load_config(arguments: argparse.Namespace) -> tuple[Config, list[str]]:
    """Combine flags, environment, `.env` of the working directory and files of secrets.

    Returns:
        The configuration, and a sentence for each name in `.env` that is none of ours and each file of secrets that
        others may read.

    Raises:
        ConfigError: a file that can't be read, or a faulty setting or price.
    """
    found = dotenv()
    flags = {s.env: getattr(arguments, s.env, None) for s in SETTINGS if s.flag}
    paths = secret_paths(os.environ, found)
    secrets = {name: _secret(Path(file), f"{name}_FILE={file}") for name, file in paths.items()}
    files = [*(Path(file) for file in paths.values()), *([DOTENV] if holds_secret(found) else [])]
    open_to_all = [
        f"{path} holds a secret and every user may read it: chmod 600." for path in files if _open(path)
    ]
    config = load(flags, os.environ, found, secrets)
    if config.prices_file:
        config = replace(config, prices=_prices(config.prices_file))
    return config, [*unknown_names(found, os.environ), *open_to_all]


def export_standard_names() -> None:
    """Put what `.env` says to OpenTelemetry's SDK into the environment, where that looks, and drop empty values.

    Raises:
        ConfigError: `.env` can't be read.
    """
    for name, value in dotenv().items():
        if name.startswith("OTEL_") and value and not os.environ.get(name):
            os.environ[name] = value
    for name in [name for name, value in os.environ.items() if name.startswith("OTEL_") and not value]:
        del os.environ[name]


def _prices(file: str) -> Mapping[str, Prices]:
    what = f"PRICES_FILE={file}"
    try:
        return parse_prices(_read(Path(file), what))
    except ValueError as fault:
        raise ConfigError(f"{what} {fault}.") from None


def dotenv() -> dict[str, str | None]:
    """The `.env` of the working directory; empty when there is none.

    Raises:
        ConfigError: it can't be read.
    """
    return parsers.parse_dotenv(DOTENV, _read(DOTENV, DOTENV.name)) if DOTENV.exists() else {}


def _secret(path: Path, what: str) -> str:
    """The first line; nothing in there is a mistake, not a secret that is not set."""
    secret = _read(path, what).partition("\n")[0].rstrip("\r")
    if not secret:
        raise ConfigError(f"{what} is empty: put the secret into its first line, or leave the setting empty.")
    return secret


def _open(path: Path) -> bool:
    """Others than owner and group may read it. What is mounted read-only is in the hands of who mounted it."""
    try:
        others_may = bool(path.stat().st_mode & stat.S_IROTH)
        return others_may and not os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return False


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
        if len(raw) > LARGEST_FILE_BYTES:
            raise ConfigError(f"{what} can't be read: it is larger than {LARGEST_FILE_BYTES // 1024} KiB.")
        return raw.decode()
    except OSError as error:
        raise ConfigError(f"{what} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} can't be read: it is not text in UTF-8.") from None

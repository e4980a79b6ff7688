"""Where settings come from: flags, the environment, `.env`, files of secrets. Shell."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ari_app import parsers
from ari_app.config import Config, load, secret_paths, unknown_names
from ari_app.errors import ConfigError
from ari_app.prices import Prices, parse_prices
from ari_app.settings import SETTINGS


def load_config(arguments: argparse.Namespace) -> tuple[Config, list[str]]:
    """Combine flags, environment, `.env` of the working directory and files of secrets.

    Returns:
        The configuration, and a sentence for each name in `.env` that is none of ours.

    Raises:
        ConfigError: a file that can't be read, or a faulty setting or price.
    """
    found = dotenv()
    flags = {s.env: getattr(arguments, s.env, None) for s in SETTINGS if s.flag}
    secrets = {
        name: _read(Path(file), f"{name}_FILE={file}").partition("\n")[0].rstrip("\r")
        for name, file in secret_paths(os.environ, found).items()
    }
    config = load(flags, os.environ, found, secrets)
    if config.prices_file:
        config = replace(config, prices=_prices(config.prices_file))
    return config, unknown_names(found, os.environ)


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
    path = Path(".env")
    return parsers.parse_dotenv(path, _read(path, path.name)) if path.exists() else {}


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{what} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} can't be read: it is not text in UTF-8.") from None

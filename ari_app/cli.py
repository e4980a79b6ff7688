"""The command line: `serve`, `dial`, `check`, `calls`, `demo`, `offline`.

Errors become one sentence and an exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import uvloop

from ari_app import __version__, cli_calls, logs, parsers
from ari_app.ari.instances import state_directory
from ari_app.ari.outcome import Outcome
from ari_app.config import Config, require_ari, require_keys
from ari_app.dialog import ports
from ari_app.errors import AriAppError, AriError, ConfigError, LimitReached
from ari_app.event_loop import Loop
from ari_app.happenings import Progress
from ari_app.settings import SETTINGS
from ari_app.sources import dotenv, export_standard_names, load_config
from ari_app.texts import shown

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_ASTERISK = 3
EXIT_LIMIT = 8
EXIT_INTERRUPTED = 130

EXIT_CODES = """\
exit codes:
  0    the call was answered and ended normally
  1    something of ours or of the engines failed
  2    a setting or argument is wrong or missing, or the number may not be called
  3    Asterisk is unreachable, or refused us
  4    busy
  5    no answer
  6    the callee declined
  7    the number can't be reached
  8    a limit on outbound calls is reached (DIAL_PER_MINUTE and its like)
  130  interrupted (Ctrl-C)
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `python -m ari_app`."""
    parser = argparse.ArgumentParser(
        prog="python -m ari_app",
        description="A phone agent for Asterisk.",
        epilog="Settings come from flags, then the environment, then .env; see docs/configuration.md.",
    )
    parser.add_argument("--version", action="version", version=f"ari_app {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="answer inbound calls that the dialplan hands to Stasis")
    _add_settings(serve)

    dial = commands.add_parser(
        "dial",
        help="place a call and hold the conversation",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    dial.add_argument("number", help="number to call, digits with an optional leading +")
    _add_settings(dial)

    check = commands.add_parser(
        "check",
        help="look at everything that the next call needs, and say what is wrong and what to do",
        epilog="exit codes: 0 nothing failed (or warnings only), 1 ours or an engine, 2 a setting, 3 Asterisk",
    )
    check.add_argument("--json", metavar="FILE", help="also write the findings and figures as JSON")
    check.add_argument("--number", metavar="N", help="also say whether this number may be called")
    check.add_argument(
        "--reg-timeout",
        type=_argument(parsers.number(0, 3600, "s", whole=False)),
        metavar="S",
        help="how long the trunk may take to register (default: SIP_REG_TIMEOUT, else 15)",
    )
    _add_settings(check)

    cli_calls.add_parser(commands)

    demo = commands.add_parser("demo", help="a whole conversation with no key, no trunk and no phone")
    demo.add_argument(
        "--mode",
        choices=("pipeline", "realtime"),
        default="pipeline",
        help="which brain talks (default: %(default)s)",
    )
    demo.add_argument("--keep", action="store_true", help="then stay up, with the console, until Ctrl-C")
    demo.add_argument("--json", metavar="FILE", help="also write the conversation and its figures as JSON")

    offline = commands.add_parser("offline", help="run the embedded OpenAI-compatible backend on its own")
    offline.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    port, port_help = parsers.number(0, 65535, "port"), "port, 0 for any free one (default: %(default)s)"
    offline.add_argument("--port", type=_argument(port), default=8089, help=port_help)
    offline.add_argument("--exit-with-stdin", action="store_true", help="end when standard input closes")
    return parser


def _argument(parse: parsers.Parser) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as fault:
            raise argparse.ArgumentTypeError(f"'{text}' {fault}") from None

    return convert


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings (also by environment or .env)")
    for setting in SETTINGS:
        if setting.flag is None:
            continue
        meaning = setting.meaning.replace("%", "%%")
        if setting.switch:
            group.add_argument(
                setting.flag, dest=setting.env, action="store_const", const="yes", help=meaning
            )
        else:
            default = (
                f" (default: {setting.default})" if setting.default and len(setting.default) < 40 else ""
            )
            group.add_argument(setting.flag, dest=setting.env, metavar="VALUE", help=meaning + default)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return uvloop.run(_COMMANDS[arguments.command](arguments), loop_factory=Loop)
    except ConfigError as error:
        return _complain(error, EXIT_CONFIG)
    except LimitReached as error:
        return _complain(error, EXIT_LIMIT)
    except AriError as error:
        return _complain(error, EXIT_ASTERISK)
    except AriAppError as error:
        return _complain(error, EXIT_FAILED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


def _complain(error: Exception, code: int) -> int:
    line = logs.json_line(logging.ERROR, str(error)) if logs.is_json() else shown(f"error: {error}")
    logs.say(line)
    return code


def _say(line: str) -> None:
    """What a service tells on standard output, in the form of its log lines."""
    print(logs.json_line(logging.INFO, line) if logs.is_json() else line, flush=True)


def _take_down_on_sigterm() -> None:
    """Leave in order, as on Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _config_for_calls(arguments: argparse.Namespace, *, quiet: bool = False) -> Config:
    config, unknown = load_config(arguments)
    export_standard_names()
    require_ari(config)
    require_keys(config)
    logs.configure(debug=config.debug, quiet=quiet, log_format=config.log_format)
    for warning in [*unknown, *config.warnings()]:
        line = logs.json_line(logging.WARNING, warning) if logs.is_json() else shown(f"warning: {warning}")
        logs.say(line)
    return config


# --- serve -------------------------------------------------------------------------------------------


async def _serve(arguments: argparse.Namespace) -> int:
    from ari_app.app import App

    config = _config_for_calls(arguments)
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    is_ready = False

    def on_signal() -> None:
        if stop.is_set() or not is_ready:  # asked twice, or there are no callers yet: do not wait
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)

    def ready() -> None:
        nonlocal is_ready
        is_ready = True
        _say(f"ready: calls to Stasis({config.ari_app}) are answered")

    try:
        await App(config, command="serve").serve(ready=ready, stop=stop)
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED if is_ready else EXIT_OK
    return EXIT_OK


# --- dial --------------------------------------------------------------------------------------------

_DIAL_EXIT_CODES = {
    Outcome.ANSWERED: EXIT_OK,
    Outcome.BUSY: 4,
    Outcome.NO_ANSWER: 5,
    Outcome.REJECTED: 6,
    Outcome.UNREACHABLE: 7,
    Outcome.CONGESTION: 7,
    Outcome.CANCELLED: EXIT_INTERRUPTED,
    Outcome.FAILED: EXIT_FAILED,
}


async def _dial(arguments: argparse.Namespace) -> int:
    from ari_app.app import App

    config = _config_for_calls(arguments, quiet=True)
    hang_up = asyncio.Event()
    interrupted = is_dialing = False
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        nonlocal interrupted
        if interrupted or not is_dialing:
            task.cancel()
        interrupted = True
        hang_up.set()

    def observe(what: object) -> None:
        nonlocal is_dialing
        is_dialing = True
        _print_progress(what)

    def on_enter() -> None:
        sys.stdin.readline()
        loop.remove_reader(sys.stdin)
        hang_up.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    if sys.stdin.isatty():
        loop.add_reader(sys.stdin, on_enter)
    ending = await App(config, command="dial").dial(arguments.number, observer=observe, hang_up=hang_up)
    print(shown(f"ended: {ending}"))
    return EXIT_INTERRUPTED if interrupted else _DIAL_EXIT_CODES[ending.outcome]


def _print_progress(what: object) -> None:
    match what:
        case Progress(stage=stage) if stage != "talking":
            line = stage
        case ports.CallerSaid(text=text):
            line = f"caller: {text}"
        case ports.CallerNotUnderstood(reason=reason):
            line = f"caller: ({reason})"
        case ports.BotSaid(interrupted=True, heard=heard):
            line = f"bot: {heard} [interrupted]"
        case ports.BotSaid(text=text):
            line = f"bot: {text}"
        case ports.EngineFailed():
            line = f"failed: {what.stage}: {what.message}"
        case _:
            return
    print(shown(line), flush=True)


# --- check -------------------------------------------------------------------------------------------


async def _check(arguments: argparse.Namespace) -> int:
    from ari_app.check import findings as found
    from ari_app.check.run import run_checks, settings_fault

    json_path = _json_path(arguments)
    _take_down_on_sigterm()
    try:
        config, unknown = load_config(arguments)
    except ConfigError as error:
        looking = settings_fault(error)
    else:
        logs.configure(debug=config.debug, quiet=True, log_format=config.log_format)
        looking = run_checks(
            config,
            unknown,
            environ=dotenv() | os.environ,
            state_dir=state_directory(),
            today=datetime.now(UTC).date(),
            reg_timeout_s=arguments.reg_timeout,
            number=arguments.number,
        )
    findings = []
    async for finding in looking:
        findings.append(finding)
        print(found.line(finding), flush=True)
    print(found.summary(findings))
    if json_path is not None:
        json_path.write_text(json.dumps(found.as_json(findings), indent=2) + "\n", encoding="utf-8")
    return found.exit_code(findings)


def _json_path(arguments: argparse.Namespace) -> Path | None:
    json_path = Path(arguments.json) if arguments.json else None
    if json_path is not None and (json_path.is_dir() or not os.access(json_path.parent, os.W_OK)):
        raise ConfigError(f"--json: {json_path} is a folder, or is in one that can't be written.")
    return json_path


async def _calls(arguments: argparse.Namespace) -> int:
    config, _ = load_config(arguments)
    return await asyncio.to_thread(cli_calls.run, arguments, Path(config.recordings_dir))


# --- demo and offline --------------------------------------------------------------------------------


async def _demo(arguments: argparse.Namespace) -> int:
    from ari_app.demo import run

    json_path = _json_path(arguments)
    logs.configure(debug=False, quiet=True)
    _take_down_on_sigterm()
    report = run.DemoReport()
    try:
        await run.run_demo(
            report,
            mode=arguments.mode,
            keep=arguments.keep,
            recordings=Path("recordings"),
            show=_show,
        )
    except AriAppError as error:
        report.problems.append(str(error))
        raise
    finally:
        if json_path is not None:
            run.write_json(json_path, report)
    for line in run.summary(report):
        _show(line)
    return EXIT_FAILED if report.problems else EXIT_OK


def _show(text: str) -> None:
    print("\n".join(map(shown, text.split("\n"))), flush=True)


def _await_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending anyway
        loop.call_soon_threadsafe(stop.set)


async def _offline(arguments: argparse.Namespace) -> int:
    from ari_app.offline import server

    # Its lines mix with those of the command that started it.
    log_format: Literal["auto", "text", "json"] = "auto"
    if os.environ.get("LOG_FORMAT") in ("text", "json"):
        log_format = "json" if os.environ["LOG_FORMAT"] == "json" else "text"
    logs.configure(debug=False, log_format=log_format)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if arguments.exit_with_stdin:
        # A thread, because not every kind of standard input can be polled.
        threading.Thread(target=_await_end_of_input, args=(loop, stop), daemon=True).start()
    _say(server.describe())
    async with server.running(arguments.host, arguments.port) as url:
        _say(f"listening on {url}")
        await stop.wait()
    return EXIT_OK


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], Coroutine[Any, Any, int]]] = {
    "serve": _serve,
    "dial": _dial,
    "check": _check,
    "calls": _calls,
    "demo": _demo,
    "offline": _offline,
}

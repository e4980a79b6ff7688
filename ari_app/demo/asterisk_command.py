"""What `scripts/asterisk` does: fetch the private Asterisk, or run it in the foreground. Shell."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ari_app.demo.asterisk import AsteriskSettings, PrivateAsterisk
from ari_app.demo.asterisk_prefix import Prefix, fetch
from ari_app.errors import AriAppError


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0 when done or interrupted, 1 with one sentence when it cannot be done."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        prefix = fetch(_tell)
        if arguments.command == "fetch":
            return 0
        host, _, port = arguments.trunk.partition(":")
        settings = AsteriskSettings(
            app_name=arguments.app,
            bot_extension=arguments.bot_extension,
            fallback_extension=arguments.fallback_extension,
            trunk_domain=host,
            trunk_port=port,
        )
        asterisk = PrivateAsterisk(
            prefix,
            settings,
            folder=arguments.folder,
            http_port=arguments.http_port,
            sip_port=arguments.sip_port,
        )
        return asyncio.run(_run(asterisk, prefix))
    except AriAppError as error:
        _tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 0


async def _run(asterisk: PrivateAsterisk, prefix: Prefix) -> int:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    async with asterisk:
        console = prefix.command("usr/sbin/asterisk", "-C", str(asterisk.folder / "etc/asterisk.conf"), "-r")
        _tell(f"ARI        {asterisk.ari_url}  user {asterisk.ari_user}")
        _tell(f"SIP        {asterisk.sip_host}:{asterisk.sip_port}/udp  user {asterisk.caller_user}")
        _tell(f"passwords  {asterisk.credentials_folder}/ari_password and caller_password")
        _tell(f"bot        extension {asterisk.bot_extension} -> Stasis({asterisk.settings.app_name})")
        _tell(f"log        {asterisk.log_path}")
        _tell(f"console    {' '.join(console)}")
        _tell("Ctrl-C ends it.")
        ended = asyncio.create_task(asterisk.wait())
        stopped = asyncio.create_task(interrupted.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, stopped):
            task.cancel()
        if not interrupted.is_set():
            _tell("error: Asterisk ended by itself; its log tells why")
            return 1
    return 0


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/asterisk", description="A private Asterisk 22.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="get it from Debian's packages, or check the copy in the cache")
    run = commands.add_parser("run", help="run it in the foreground, on loopback")
    default = AsteriskSettings()
    run.add_argument("--app", default=default.app_name, help="Stasis application (default %(default)s)")
    run.add_argument("--bot-extension", default=default.bot_extension, help="default %(default)s")
    run.add_argument("--fallback-extension", default="", help="takes calls that the bot cannot")
    run.add_argument("--trunk", metavar="HOST[:PORT]", default="", help="where outbound calls go")
    run.add_argument("--http-port", type=int, default=8088, help="default %(default)s; 0: any free port")
    run.add_argument("--sip-port", type=int, default=5060, help="default %(default)s; 0: any free port")
    run.add_argument("--folder", type=Path, help="keep configuration, passwords and logs here")
    return parser


if __name__ == "__main__":
    sys.exit(main())

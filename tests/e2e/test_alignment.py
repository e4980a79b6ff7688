"""Both directions of a call stand in its recording as they were on the wire, whatever the caller's clock and line do.

The ten minutes' case is `./scripts/bench --only alignment`.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from ari_app.demo.asterisk import PrivateAsterisk
from bench.clicks import Caller, alignment, plan
from bench.rig import callers, free_ports
from tests.e2e.checks import events_of, settled
from tests.e2e.conftest import Serve
from tests.fakes.raw_sip_phone import RawSipPhone
from tests.record.whole import assert_whole

SECONDS = 20.5
"""The first click comes after 1 s, the last after 20 s."""
FRAME_MS = 20
KINDS = {
    "a good clock": Caller(),
    "a fast clock": Caller(clock_ppm=2000),
    "a slow clock": Caller(clock_ppm=-2000),
    "a late beginning": Caller(starts_after_s=0.3),
    "silence that is not sent": Caller(starts_after_s=0.05, spurt_frames=10),
}
"""A phone's clock errs by 50 ppm or so; these are two frames off after 20 s, if nobody sets them right."""
NOTICED_MS = 10
"""What so wrong a clock may go on before that is noticed."""


async def test_clicks_are_recorded_when_they_were_heard_and_sent(
    asterisk: PrivateAsterisk, serve: Serve, recordings: Path
) -> None:
    """After 1 s as after 20 s; each caller's clicks come back from the echo brain."""
    ports = free_ports(len(KINDS))
    given = plan(list(KINDS.values()), ports, seconds=SECONDS, every_s=1)
    async with (
        serve(MODE="echo") as process,
        callers("bench.clicks", given) as noted,
        AsyncExitStack() as stack,
    ):
        phones = []
        for port in ports:
            phone = RawSipPhone(asterisk.sip_port, asterisk.caller_user, asterisk.caller_password)
            phones.append(await stack.enter_async_context(phone))
            phone.rtp_port = port
            assert await phone.invite(asterisk.bot_extension) == 200
        calls = json.loads(await noted.read())["calls"]
        for phone in phones:
            await phone.hang_up()
        left = await settled(asterisk, process.pid)
    assert (left.channels, left.bridges) == (0, 0)
    folders = {events_of(folder)[0]["sip_call_id"]: folder for folder in recordings.iterdir()}
    for kind, phone, call in zip(KINDS, phones, calls, strict=True):
        folder = folders[phone.call_id]
        assert_whole(folder)
        assert len(call["sent_at"]) == 20, kind
        clicks = alignment(folder / "full_call.wav", call["sent_at"], call["heard_at"])
        astray_ms = FRAME_MS + NOTICED_MS * bool(KINDS[kind].clock_ppm)
        drift_ms = clicks.drift_ms
        assert drift_ms["caller"] <= astray_ms and drift_ms["beside"] <= astray_ms, (kind, clicks)
        assert drift_ms["bot"] <= FRAME_MS, (kind, clicks)
        # Each side has its place to a frame, so distances are right to two; also of clicks on a busy machine.
        assert max(map(abs, clicks.caller_off_ms)) <= 2 * FRAME_MS, (kind, clicks)
        assert abs(median(clicks.beside_ms)) <= 2 * FRAME_MS, (kind, clicks)

"""The code broken on purpose, a piece at a time: a cell of the matrix must notice each. Shell.

./scripts/faults --mutants [--only WORDS]
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ari_app.demo.asterisk_prefix import ASTERISK, fetch
from ari_app.demo.voice import utterance
from bench.speech import trimmed
from tests.faults import cases
from tests.faults.course import SENTENCE
from tests.faults.lane import Lane

SOURCE = Path(__file__).parents[2] / "ari_app"


@dataclass(frozen=True)
class Mutant:
    """What is broken, and the cell that must notice."""

    name: str
    cell: str
    edits: tuple[tuple[str, str, str], ...]
    """File of the package, a text that stands there once, and what stands in its place."""


MUTANTS = (
    Mutant(
        "the bridge is not deleted",
        "SIP: hung up within 10 ms, throughout, pipeline",
        (("call.py", "await self._ari.delete_bridge(self.bridge_id)", "pass"),),
    ),
    Mutant(
        "the media channel is not hung up",
        "RTP: 1 % loss, throughout, pipeline",
        (("call.py", "            await self._ari.hangup(self.media_id)\n", "            pass\n"),),
    ),
    Mutant(
        "the RTP socket is not closed",
        "SIP: hung up within 10 ms, throughout, pipeline",
        (("rtp/endpoint.py", "            self._transport.close()\n\n", "            pass\n\n"),),
    ),
    Mutant(
        "a Realtime connection is not closed",
        "RTP: 1 % loss, throughout, realtime",
        (
            (
                "openai_api/realtime.py",
                "            await self._session.close()\n",
                "            logger.__dict__.setdefault('kept', []).append(self._session)\n",
            ),
        ),
    ),
    Mutant(
        "speech-to-text has no deadline",
        "engine: hangs before the first byte, thinking, pipeline",
        (
            ("dialog/pipeline.py", "asyncio.timeout(deadline_s)", "asyncio.timeout(None)"),
            ("dialog/engines.py", "ALONE_S = 4.5", "ALONE_S = 1000.0"),
            ("openai_api/client.py", "read_timeout_s: float = 10.0", "read_timeout_s: float = 1000.0"),
        ),
    ),
    Mutant(
        "nobody minds the silence before an answer",
        "engine: hangs before the first byte, speaking, pipeline",
        (("dialog/pipeline.py", "        self._mind_silence(now)\n", ""),),
    ),
    Mutant(
        "nobody minds a Realtime server's silence",
        "engine: hangs before the first byte, thinking, realtime",
        (("openai_api/realtime_patience.py", '            self._say("hold")\n', "            pass\n"),),
    ),
    Mutant(
        "the bot gives up without a word",
        "engine: 401, thinking, pipeline",
        (("dialog/pipeline.py", "if self._stopgap.play(turn.number, LAST_WORDS):", "if False:"),),
    ),
    Mutant(
        "the bot never gives up",
        "engine: 503, thinking, pipeline",
        (("dialog/pipeline.py", "error.permanent or self._failures >=", "False and self._failures >="),),
    ),
    Mutant(
        "who speaks from elsewhere is heard",
        "RTP: wrong source, throughout, pipeline",
        (
            ("rtp/endpoint.py", "self._socket.connect(remote)", "pass"),
            ("rtp/receive.py", "if source != self._peer:", "if False:"),
            ("rtp/receive.py", "or packet.ssrc == self._ssrc:", "or True:"),
        ),
    ),
    Mutant(
        "what comes twice is heard twice",
        "RTP: duplicates, throughout, pipeline",
        (("rtp/receive.py", "copied = known in self._known", "copied = False"),),
    ),
    Mutant(
        "nothing of dead processes is swept",
        "machine: kill -9 of the application, listening, pipeline",
        (
            (
                "ari/reconcile.py",
                "        if channels is None:\n",
                "        return\n        if channels is None:\n",
            ),
        ),
    ),
    Mutant(
        "a lost connection is left alone for half a minute",
        "machine: kill -9 of Asterisk, listening, pipeline",
        (
            ("ari/client.py", "FIRST_DELAY_S = 0.05", "FIRST_DELAY_S = 30"),
            ("ari/client.py", "LONGEST_DELAY_S = 1.0", "LONGEST_DELAY_S = 30.0"),
        ),
    ),
)


def broken(mutant: Mutant, folder: Path) -> Path:
    """A copy of the package with the mutant's edits; returns the folder to import it from."""
    shutil.copytree(SOURCE, folder / "ari_app", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in mutant.edits:
        path = folder / "ari_app" / name
        text = path.read_text("utf-8")
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {name} has {text.count(old)} times {old!r}")
        path.write_text(text.replace(old, new), "utf-8")
    return folder


async def run(mutants: Sequence[Mutant], lanes: int, say: Callable[[str], None]) -> dict[str, list[str]]:
    """What the cell of each mutant found; nothing: it did not notice."""
    prefix = await asyncio.to_thread(fetch, say, ASTERISK)
    sentence = trimmed(await asyncio.to_thread(utterance, SENTENCE))
    table = {case.name: (case, procedure) for case, procedure in cases.table()}
    waiting = deque(mutants)
    found: dict[str, list[str]] = {}

    async def work(number: int, folder: Path) -> None:
        async with Lane(number, prefix, folder) as lane:
            lane.engine.know(sentence, SENTENCE)
            while waiting:
                mutant = waiting.popleft()
                more = {"PYTHONPATH": str(broken(mutant, folder / f"mutant{len(waiting)}"))}
                try:
                    problems = (await cases.run(lane, *table[mutant.cell], sentence, more)).problems
                except Exception as error:  # one mutant's fault must not cost the others
                    problems = [f"the test broke: {type(error).__name__}: {error}"]
                found[mutant.name] = problems
                say(f"{'noticed' if problems else 'MISSED '}  {mutant.name}: {'; '.join(problems)}")

    with tempfile.TemporaryDirectory(prefix="ari_app-mutants-") as folder:
        async with asyncio.TaskGroup() as group:
            for number in range(min(lanes, len(mutants))):
                group.create_task(work(number, Path(folder)))
    return found


def as_markdown(found: Mapping[str, Sequence[str]]) -> str:
    """For people."""
    lines = [
        "# The code broken on purpose",
        "",
        "| what was broken | the cell | what it found |",
        "|---|---|---|",
    ]
    cells = {mutant.name: mutant.cell for mutant in MUTANTS}
    lines += [
        f"| {name} | {cells[name]} | {'; '.join(said) or '**NOTHING**'} |" for name, said in found.items()
    ]
    return "\n".join(lines) + "\n"

"""The fault matrix: every way in which something can fail, at every moment of a call, against real parts.

./scripts/faults [--mutants] [--lanes N] [--only WORDS] [--list] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import deque
from pathlib import Path

from ari_app.demo.asterisk_prefix import ASTERISK, fetch
from ari_app.demo.voice import utterance
from bench.arguments import count
from bench.speech import trimmed
from tests.faults import cases, limit, mutants
from tests.faults.course import SENTENCE, Case, Note, Procedure
from tests.faults.lane import Lane
from tests.faults.report import as_markdown, write


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201, a command


async def matrix(
    cells: list[tuple[Case, Procedure]], lanes: int, *, full_house: bool, notes: list[Note] | None = None
) -> list[Note]:
    """Run the cells, several at a time, each in a lane of its own; before them, the limit. `notes` gets each."""
    prefix = await asyncio.to_thread(fetch, say, ASTERISK)
    sentence = trimmed(await asyncio.to_thread(utterance, SENTENCE))
    waiting = deque(cells)
    notes = [] if notes is None else notes

    async def work(number: int, directory: Path) -> None:
        async with Lane(number, prefix, directory) as lane:
            lane.engine.know(sentence, SENTENCE)
            while waiting:
                case, procedure = waiting.popleft()
                try:
                    note = await cases.run(lane, case, procedure, sentence)
                except Exception as error:  # one cell's fault must not cost the others
                    note = Note(case.group, case.fault, case.moment, case.mode)
                    note.problems.append(f"the test broke: {type(error).__name__}: {error}")
                notes.append(note)
                verdict = "ok  " if note.ok else "FAIL"
                waits = f", waits {max(note.waits_ms) / 1000:.1f} s" if note.waits_ms else ""
                place = f"{len(notes):3} of {len(cells) + full_house}"
                say(f"{verdict} {place}  {case.name}: {note.ending}{waits}, {note.took_s} s")
                for problem in note.problems:
                    say(f"       {problem}")

    with tempfile.TemporaryDirectory(prefix="ari_app-faults-") as folder:
        if full_house:
            async with Lane(99, prefix, Path(folder), limit.narrow()) as lane:
                notes.append(await limit.full_house(lane))
                say(
                    f"{'ok  ' if notes[0].ok else 'FAIL'}  {notes[0].fault}: {notes[0].problems or notes[0].remarks}"
                )
        async with asyncio.TaskGroup() as group:
            for number in range(min(lanes, len(cells))):
                group.create_task(work(number, Path(folder)))
    return notes


def _mutants(arguments: argparse.Namespace) -> int:
    chosen = [one for one in mutants.MUTANTS if all(words in one.name for words in arguments.only)]
    if not chosen:
        say(f"No mutant has all of these words in its name: {', '.join(arguments.only)}.")
        return 2
    found = asyncio.run(mutants.run(chosen, arguments.lanes, say))
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "mutants.md").write_text(mutants.as_markdown(found), "utf-8")
    return 0 if all(found.values()) else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=count, default=4, help="cells at the same time")
    parser.add_argument(
        "--only", action="append", default=[], help="cells whose name holds this; given again, this too"
    )
    parser.add_argument("--sample", type=int, default=0, help="so many cells, chosen by chance")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="name the cells and end")
    parser.add_argument("--output", type=Path, default=Path("faults-report"))
    parser.add_argument("--mutants", action="store_true", help="break the code instead: which cells notice?")
    arguments = parser.parse_args()
    if arguments.mutants:
        return _mutants(arguments)
    cells = [cell for cell in cases.table() if all(words in cell[0].name for words in arguments.only)]
    if arguments.sample:
        random.Random(arguments.seed).shuffle(cells)
        cells = cells[: arguments.sample]
    if arguments.list:
        say("\n".join(case.name for case, _ in cells))
        return 0
    full_house = not arguments.only or "limit" in arguments.only
    if not cells and not full_house:
        say("No cell has all of these words in its name; --list names them.")
        return 2
    notes: list[Note] = []
    try:
        asyncio.run(matrix(cells, arguments.lanes, full_house=full_house, notes=notes))
    finally:  # interrupted: what is known is kept
        write(notes, arguments.output)
    say(as_markdown(notes))
    return 0 if all(note.ok for note in notes) else 1


if __name__ == "__main__":
    sys.exit(main())

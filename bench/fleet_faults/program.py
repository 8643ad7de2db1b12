"""The command line of bench/fleets."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.fleet_faults.campaign import run_all
from bench.fleet_faults.control import lose
from bench.fleet_faults.outcome import Outcome
from bench.fleet_faults.plans import KINDS, plan_of
from bench.fleet_faults.table import table
from bench.rig import needs
from bench.rig.campaign import end_with_sigterm, print_heading, seed_of
from bench.rig.progress import say
from bench.rig.seeds import Chunk, chunks, spread

_EACH = 10  # runs on one pair of databases
_ABOUT = """\
Each run: two gateways with one queue in PostgreSQL, whose primary waits for a synchronous standby;
mail comes to both, and one fault that a seed chooses. It has to be seen to begin and to end; then
nothing may be lost, unexpected, damaged, or twice without a recorded doubt (bench/check). Ends with
0 if all runs are good, with 1 if not; the files of those that are not are kept.
With --control asynchronous the standby is not waited for and lags when its primary dies: it ends
with 0 if mail is lost, and none that was acknowledged before the lag.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""
    options = _parser().parse_args(arguments)
    needs.find_programs()
    end_with_sigterm()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling is half of a gateway's start
    directory = options.keep or Path(tempfile.mkdtemp(prefix="fleets-", dir="/var/tmp"))
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    if any(directory.iterdir()):
        sys.exit(f"{directory} holds files already")
    seed = seed_of(options.one if options.one is not None else options.seed)
    carry_out = _control if options.control else _many
    try:
        return carry_out(directory, seed, options)
    finally:
        if any(directory.iterdir()):
            say(f"files: {directory}")
        else:
            directory.rmdir()


def _many(directory: Path, seed: int, options: argparse.Namespace) -> int:
    runs = 1 if options.one is not None else options.runs
    each = max(1, min(_EACH, -(-runs // options.jobs)))
    some = partial(_some, directory, options.kind or KINDS, options.keep is not None)
    tasks = chunks("", seed, runs, each=each, stops=False)
    found = [one for several in spread(options.jobs, some, tasks) for one in several]
    print_heading(directory)
    print(table(found))
    return 0 if found and all(one.is_good for one in found) else 1


def _some(directory: Path, kinds: Sequence[str], keeps: bool, chunk: Chunk) -> list[Outcome]:
    """Run the seeds of a chunk, telling of each."""
    plans = [plan_of(seed, kinds) for seed in range(chunk.first, chunk.first + chunk.seeds)]
    found = []
    for one in run_all(directory, plans, keeps=keeps):
        say(one.to_text())
        if one.trouble:
            say(one.trouble)
        found.append(one)
    return found


def _control(directory: Path, seed: int, options: argparse.Namespace) -> int:
    place = directory / f"{seed}-control"
    place.mkdir()
    loss = lose(place, seed)
    print_heading(directory)
    print(loss.to_text())
    if loss.is_found and options.keep is None:
        shutil.rmtree(place)
    return 0 if loss.is_found else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleets", description=_ABOUT)
    parser.add_argument("one", type=int, nargs="?", metavar="SEED", help="one run, of this seed")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="so many (200)")
    parser.add_argument("--seed", type=int, help="of the first run (default: a new one)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="runs at once (1)")
    parser.add_argument(
        "--kind", choices=KINDS, nargs="+", metavar="KIND", help=f"of {', '.join(KINDS)}; all"
    )
    parser.add_argument("--control", choices=("asynchronous",), help="what has to lose mail")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files there")
    return parser

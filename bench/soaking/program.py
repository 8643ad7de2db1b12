"""The command line of bench/soak."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.rig import needs
from bench.rig.campaign import end_with_sigterm, place_of_files, print_heading, seed_of
from bench.soaking.campaign import run
from bench.soaking.page import page
from bench.soaking.rig import HISTORY, Plan

PAGE = "soak.html"
_ABOUT = """\
Lets mail flow steadily through a gateway while faults come one after the other, and finished mail
is deleted; measures memory, descriptors and threads of each process and the size of the database
each 5 s. Ends with 0 if all of them are flat after the first third (bench/soaking/trends.py),
nothing is lost (as bench/check finds), and each fault was seen to begin and to end; with 1 if not.
With --control the gateway leaks memory and descriptors and keeps all mail, and it ends with 0 if
that is found.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit code."""
    options = _parser().parse_args(arguments)
    needs.find_programs()
    end_with_sigterm()
    with place_of_files(options.keep, HISTORY, "soak-") as directory:
        return _carry_out(directory, options)


def _carry_out(directory: Path, options: argparse.Namespace) -> int:
    seed = seed_of(options.seed)
    plan = Plan(
        database=options.database,
        minutes=options.minutes,
        seed=seed,
        rate_per_s=options.rate,
        retention_s=options.retention,
        is_control=options.control is not None,
    )
    verdict = run(directory, plan)
    title = f"Soak: {plan.minutes:g} minutes on {plan.database}, {plan.rate_per_s:g}/s, seed {seed}"
    written = options.page or directory / PAGE
    written.write_text(page(verdict, title))
    print_heading(directory)
    print(title)
    print(verdict.to_text())
    if options.control is not None:
        is_found = verdict.finds_the_leak
        print("PASSED: the leak is found" if is_found else "FAILED: the leak is not found")
        return 0 if is_found else 1
    return 0 if verdict.is_good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soak", description=_ABOUT)
    parser.add_argument(
        "--minutes", type=float, default=120.0, metavar="N", help="at least 12 (default 120)"
    )
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seed", type=int, help="of the order of faults (default: a new one)")
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second (default 20)")
    parser.add_argument(
        "--retention", type=float, default=60.0, metavar="S", help="of finished mail (default 60)"
    )
    parser.add_argument("--control", choices=("leak",), help="a gateway that has to be found")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files there")
    parser.add_argument("--page", type=Path, metavar="FILE", help="of the plots (default: in DIR)")
    return parser

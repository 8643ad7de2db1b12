"""The command line of bench/kill."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.checking.checker import check_facts
from bench.checking.facts import read_facts
from bench.checking.report import control_verdict
from bench.history import read_history
from bench.killing.blows import find_blows
from bench.killing.campaign import HISTORY, SLOTS, Plan, run
from bench.killing.controls import CONTROLS, LOSES
from bench.killing.servers import server
from bench.killing.table import render
from bench.rig import needs
from bench.rig.campaign import end_with_sigterm, place_of_files, print_heading, seed_of
from bench.rig.mta import ROOT

_ABOUT = """\
Kills processes of a server at random instants while mail flows through it over 20 connections,
writes the history of clients, sink, kills and queue, and checks it as bench/check does: what was
acknowledged was delivered or is queued; nothing is unexpected or damaged; what arrived twice was
in doubt (sent to its final dot, not recorded) when its worker was killed, and the queue has that
doubt. Ends with 1 if any of that is not so, or if a control, which has a planted fault, loses
nothing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign, or verify the files of one; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.verify is not None:
        return _report(options.verify)
    needs.find_programs()
    end_with_sigterm()
    with place_of_files(options.keep, HISTORY, "kill-") as directory:
        return _carry_out(directory, options)


def _carry_out(directory: Path, options: argparse.Namespace) -> int:
    roles = ("front", "delivery", "supervisor", "all")
    run(
        directory,
        Plan(
            kills={role: getattr(options, role) for role in roles},
            seed=seed_of(options.seed),
            sink_delay_ms=options.sink_delay_ms,
            sink_delay_at=options.sink_delay_at,
            connections=options.connections,
            backlog=options.backlog,
            server=server(options.mta, SLOTS, options.control and _control(options.control)),
            about={
                "server": options.mta,
                **({"control": options.control} if options.control else {}),
                "commit": _commit(),
            },
        ),
    )
    return _report(directory)


def _control(name: str) -> tuple[str, ...]:
    return ("-m", "bench.killing.controls", name)


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _report(directory: Path) -> int:
    facts = read_facts(read_history(directory / HISTORY))
    report = check_facts(facts)
    print_heading(directory)
    print(render(find_blows(facts, report), report))
    if control := report.about.get("control"):
        loses = report.counts()[LOSES[control]]
        print(control_verdict(loses, LOSES[control]))
        return 0 if loses else 1
    return 0 if report.is_clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=_ABOUT)
    for role, count in {"front": 200, "delivery": 200, "supervisor": 10, "all": 10}.items():
        parser.add_argument(
            f"--{role}", type=int, default=count, metavar="N", help=f"kills (default {count})"
        )
    parser.add_argument(
        "--mta",
        default="relaygw",
        help="relaygw (default: its queue in SQLite), relaygw-postgres, postfix, or FILE.py:CLASS "
        "of an adapter (bench/rig/mta.py)",
    )
    parser.add_argument(
        "--control",
        choices=CONTROLS,
        help="relaygw with a planted fault, which has to be found: it answers 250 before it has "
        "stored a mail, or forgets at its end what it was sending",
    )
    parser.add_argument("--seed", type=int, help="of order and instants (default: a new one)")
    parser.add_argument(
        "--sink-delay-ms", type=float, default=30.0, help="of the sink's replies (default 30)"
    )
    parser.add_argument(
        "--sink-delay-at",
        choices=("dot", "replies"),
        default="dot",
        help="before the reply to the final dot only (default: the worst case, a message is in "
        "doubt nearly all the time), or before each reply of a transaction",
    )
    parser.add_argument("--connections", type=int, default=8, help="of clients (default 8)")
    parser.add_argument(
        "--backlog",
        type=int,
        default=300,
        help="acknowledged and not yet taken messages, at most (default 300: more than a worker "
        "claims ahead for 20 connections, so that it never runs dry)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--keep", type=Path, metavar="DIR", help="keep history and queue there")
    where.add_argument("--verify", type=Path, metavar="DIR", help="only judge what was kept there")
    return parser

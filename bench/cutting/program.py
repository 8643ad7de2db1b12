"""The command line of bench/power."""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from bench.cutting import cuts, load
from bench.cutting.load import HISTORY, Plan
from bench.cutting.look import Found, look
from bench.cutting.table import is_passed, render
from bench.cutting.verdict import Verdict, history_at, judge
from bench.cutting.volume import FILE_SYSTEMS, Volume, leave_the_mounts_of_others, roomy_place
from bench.history import read_history, write_history
from bench.rig.campaign import end_with_sigterm, print_heading, seed_of

_ABOUT = """\
Runs a gateway on a disk that remembers each write and each flush, with clients, programs that
call sendmail, and a provider. Then it makes images of that disk as power cuts leave it: what was
flushed is there, and of the rest what chance keeps, in pieces down to a sector. Each image is
mounted and opened by the gateway's own code: what was acknowledged before the cut, or handed to
sendmail, is queued, in the maildrop or was delivered, and whole. Needs root. Ends with 1 if any
of that is not so, or if a control, which does not sync its commits, loses nothing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; return the exit code."""
    options = _parser().parse_args(arguments)
    end_with_sigterm()
    seed = seed_of(options.seed)
    plan = Plan(database=options.database, is_control=options.control, messages=options.messages)
    leave_the_mounts_of_others()
    place = Path(tempfile.mkdtemp(prefix="power-", dir=roomy_place()))
    place.chmod(0o755)  # the server of PostgreSQL runs as a user of its own
    try:
        verdicts = carry_out(place, plan, options, seed)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print_heading(Path(tempfile.gettempdir()))
    print(f"seed {seed}\n\n{render(plan, verdicts)}")
    return 0 if is_passed(plan, verdicts) else 1


def carry_out(directory: Path, plan: Plan, options: argparse.Namespace, seed: int) -> list[Verdict]:
    """Record a load, cut its disk again and again, and return what each image proves."""
    chance = random.Random(seed)
    volume = Volume(
        directory, file_system=options.file_system, size_bytes=load.SIZE_BYTES[plan.database]
    )
    server = load.server_on(volume.place, plan)
    run = load.run(volume, directory, plan, server)
    chosen = cuts.plan(
        volume.log, options.images, chance, since_ns=run.begun_ns, until_ns=run.ended_ns
    )
    history = read_history(directory / HISTORY)
    image = directory / "image"
    verdicts = []
    for cut in cuts.images(volume.log, volume.empty, image, chosen, chance):
        try:
            with volume.mounted(image), server.started() if server else nullcontext():
                found = look(directory / "gateway" / "relaygw.yaml", directory / "xdg", server)
        except (RuntimeError, subprocess.CalledProcessError) as error:  # it is beyond repair
            found = Found(problems=[str(error)])
        events = history_at(cut, history, found)
        verdicts.append(judge(cut, events, found))
        if options.keep is not None and not verdicts[-1].is_survived:
            options.keep.mkdir(parents=True, exist_ok=True)
            write_history(options.keep / f"cut-{cut.number}.jsonl", events)
        bad = sum(not verdict.is_survived for verdict in verdicts)
        sys.stderr.write(f"\r{len(verdicts)} of {len(chosen)} images, {bad} not whole ")
        sys.stderr.flush()
    sys.stderr.write("\n")
    return verdicts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=_ABOUT)
    parser.add_argument("--database", choices=sorted(load.SIZE_BYTES), default="sqlite")
    parser.add_argument("--file-system", choices=FILE_SYSTEMS, default="ext4")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="default 200")
    parser.add_argument(
        "--messages", type=int, default=3000, metavar="N", help="of the load (default 3000)"
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="do not sync commits (SQLite: synchronous=NORMAL, PostgreSQL: fsync=off)",
    )
    parser.add_argument("--seed", type=int, help="of the cuts (default: a new one)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the history of each image that is not whole"
    )
    return parser

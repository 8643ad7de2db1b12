"""`relaygw drain` on a shared queue: this instance leaves, the others have its mail.

First /readyz says no, so that a load balancer sends nobody here any more, and the maildrop, which
is this machine's alone, goes into the queue; then the gateway gets TERM: sessions finish, what is
being sent ends, the rest of the leases goes back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import click

from relaygw import service_file
from relaygw.cli.draining import count_drops
from relaygw.cli.entries import as_json
from relaygw.cli.frame import CommandFailed, warn

_STEP_S = 0.1


def leave(
    state_dir: Path, *, maildrop: Path | None, grace_s: float, wait_s: float, wants_json: bool
) -> int:
    """Stop the gateway of a state directory within `wait_s`; return the exit code."""
    began_s = time.monotonic()
    pid = service_file.running_service(state_dir)
    if pid is None:
        raise CommandFailed(
            f"no gateway runs with the state in {state_dir}; name its file: --config FILE",
            exit_code=os.EX_UNAVAILABLE,
        )
    deadline_s = began_s + wait_s
    mark = service_file.draining_mark(state_dir)
    mark.touch(mode=0o600)
    try:
        warn(f"not ready any more; stopping in {grace_s:g} s")
        time.sleep(min(grace_s, wait_s))
        # half of what is left of the time, so that the other half is there to stop in
        turn_s = (time.monotonic() + deadline_s) / 2
        while _left_in(maildrop) and time.monotonic() < turn_s:
            time.sleep(_STEP_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        while service_file.running_service(state_dir) == pid:
            if time.monotonic() >= deadline_s:
                raise CommandFailed(
                    f"process {pid} has not ended within {wait_s:g} s; what it holds goes to the "
                    "other instances when it does, or 20 s after it is killed",
                    exit_code=os.EX_TEMPFAIL,
                )
            time.sleep(_STEP_S)
    finally:
        mark.unlink(missing_ok=True)
    files = _left_in(maildrop)
    if wants_json:
        waited_s = round(time.monotonic() - began_s, 3)
        click.echo(as_json({"drained": not files, "waited_s": waited_s, "maildrop": files}))
    elif not files:
        click.echo("stopped; the other instances have its mail")
    if files:
        warn(
            f"stopped, but {files} messages lie in the maildrop {maildrop} of this machine, where "
            "no other instance sees them; start the gateway again and then: relaygw drain"
        )
    return os.EX_TEMPFAIL if files else os.EX_OK


def _left_in(maildrop: Path | None) -> int:
    return 0 if maildrop is None else count_drops(maildrop)

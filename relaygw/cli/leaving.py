"""`relaygw drain` on a shared queue: this instance leaves, the others have its mail.

First /readyz says no, so that a load balancer sends nobody here any more; then the gateway gets
TERM: sessions finish, what is being sent ends, the rest of the leases goes back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import click

from relaygw import service_file
from relaygw.cli.frame import CommandFailed, warn

_STEP_S = 0.1


def leave(state_dir: Path, *, grace_s: float, wait_s: float) -> int:
    """Stop the gateway of a state directory within `wait_s`; return the exit code."""
    pid = service_file.running_service(state_dir)
    if pid is None:
        raise CommandFailed(
            f"no gateway runs with the state in {state_dir}; name its file: --config FILE",
            exit_code=os.EX_UNAVAILABLE,
        )
    deadline_s = time.monotonic() + wait_s
    mark = service_file.draining_mark(state_dir)
    mark.touch(mode=0o600)
    try:
        warn(f"not ready any more; stopping in {grace_s:g} s")
        time.sleep(min(grace_s, wait_s))
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
    click.echo("stopped; the other instances have its mail")
    return os.EX_OK

"""A PostgreSQL server for a benchmark, from Debian's packages, with its defaults for durability."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rig.gateway import PATIENCE_S, free_port, python


def server_program(name: str) -> str | None:
    """Return the path of a server program; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@contextmanager
def postgres_queue() -> Iterator[str]:
    """Run a server with an empty queue for the length of a with block; yields its URL.

    The server refuses to run as root, so root runs it as the user `postgres`.
    """
    programs = {name: server_program(name) for name in ("initdb", "postgres")}
    if None in programs.values():
        raise RuntimeError("PostgreSQL is not installed; bring the Debian package postgresql")
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="relaygw-bench-pg-"))
    directory.chmod(0o755)
    if user is not None:
        shutil.chown(directory, user)
    port = free_port()
    _run([str(programs["initdb"]), "-D", f"{directory}/data", "-A", "trust", "-U", "relaygw"], user)
    options = (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={directory}")
    server = subprocess.Popen(
        [
            *(str(programs["postgres"]), "-D", f"{directory}/data"),
            *(part for option in options for part in ("-c", option)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user,
        cwd="/",
    )
    url = f"postgresql://relaygw@127.0.0.1:{port}/postgres"
    try:
        _upgrade(url, server)
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _run(command: list[str], user: str | None) -> None:
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        user=user,
        cwd="/",
    )


def _upgrade(url: str, server: subprocess.Popen[bytes]) -> None:
    """Make the schema as soon as the server answers."""
    deadline_s = time.monotonic() + PATIENCE_S
    command = [python(), "-m", "relaygw", "db", "upgrade"]
    environment = {
        **os.environ,
        "RELAYGW__MODE": "sandbox",
        "RELAYGW__QUEUE__URL": url,
        "RELAYGW_CONFIG": "",
    }
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if server.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"PostgreSQL is not ready: {done.stderr.strip()}")

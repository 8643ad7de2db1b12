"""A pgbouncer before a database of a test's."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.e2e.ports import free_port
from tests.postgres import PostgresServer

PROGRAM = "/usr/sbin/pgbouncer"
_PATIENCE_S = 90.0


@contextmanager
def pooler(server: PostgresServer, url: str, mode: str) -> Iterator[str]:
    """Run pgbouncer before a database in a pool mode; yields the URL through it."""
    database, port = url.rpartition("/")[2], free_port()
    with tempfile.TemporaryDirectory(prefix="relaygw-pgb-", dir="/tmp") as name:
        directory = Path(name)
        (directory / "users").write_text('"relaygw" ""\n')
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n{database} = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {directory}/users\npool_mode = {mode}\n"
            "default_pool_size = 40\nmax_client_conn = 200\n"
        )
        user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        for path in (directory, *directory.iterdir()):
            path.chmod(0o755)
        process = subprocess.Popen(
            [PROGRAM, "--quiet", str(directory / "pgbouncer.ini")],
            user=user if os.geteuid() == 0 else None,
            cwd="/",
        )
        try:
            through = f"postgresql://relaygw@127.0.0.1:{port}/{database}"
            wait_until_it_answers(through)
            yield through
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_PATIENCE_S)


def wait_until_it_answers(url: str) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)

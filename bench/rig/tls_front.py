"""TLS before a plain server: stunnel, with implicit TLS.

Not STARTTLS: stunnel's `protocol = smtp` carries the EHLO keywords through, but waits 200 ms on
each connection for a client that may speak first. That would cap Postfix, which by default opens
a connection for nearly every message. Implicit TLS spares both the same round trips.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from bench.rig.certificate import Certificate
from bench.rig.ports import free_port

_PATIENCE_S = 30.0
_CONFIG = """
foreground = yes
pid =
debug = warning
output = {directory}/stunnel.log
[smtps]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{plain_port}
cert = {chain}
"""


class TlsFront:
    """One stunnel on a free loopback port; `directory` holds its files."""

    def __init__(self, directory: Path, certificate: Certificate, *, plain_port: int) -> None:
        self.port = free_port()
        self._directory = directory
        self._config = _CONFIG.format(
            directory=directory, port=self.port, plain_port=plain_port, chain=certificate.chain
        )

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "stunnel.conf"
        config.write_text(self._config)
        # it tells its start on stderr whatever `output` says
        self._process = subprocess.Popen(["stunnel4", config], stderr=subprocess.DEVNULL)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                log = self._directory / "stunnel.log"
                tail = log.read_text()[-1000:] if log.exists() else ""
                raise RuntimeError(f"stunnel does not serve; its log ends with:\n{tail}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

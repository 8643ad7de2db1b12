"""The Postfix to compare with: Debian's own configuration in a place of its own.

main.cf is Debian's main.cf.debian, master.cf its master.cf.dist; changed are only names, paths,
the listener's port and the relay host. Nothing that costs or saves time is touched unless
`settings` or `services` say so: Postfix syncs each message as it always does. Files that an
installation copies into the chroot are copied by Postfix's own start script. Nothing that the
system's own Postfix was configured with is read.

main.cf.tls, which Debian adds where ssl-cert is installed, is left out: its cache of TLS sessions
costs a sync for each new session, and Postfix is faster without.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from bench.rig.gateway import free_port

_SHIPPED = Path("/usr/share/postfix")
_PATIENCE_S = 60.0


class Postfix:
    """One Postfix that relays everything to a port of this machine.

    `directory` must be reachable for the user postfix. `settings` are added to main.cf,
    `services` are lines added to master.cf. Needs root.
    """

    def __init__(
        self,
        directory: Path,
        *,
        relay_port: int,
        settings: Mapping[str, str],
        services: Sequence[str] = (),
    ) -> None:
        self.smtp_port = free_port()
        self.log_path = directory / "mail.log"
        self._directory = directory
        self.config = directory / "conf"
        self._services = services
        self._settings = {
            "queue_directory": str(directory / "queue"),
            "data_directory": str(directory / "data"),
            "maillog_file": str(self.log_path),
            "maillog_file_prefixes": str(directory),
            "myhostname": "gw.bench.test",
            "alias_maps": f"hash:{self.config / 'aliases'}",
            "smtpd_relay_restrictions": (
                "permit_mynetworks permit_sasl_authenticated defer_unauth_destination"
            ),
            "relayhost": f"[127.0.0.1]:{relay_port}",
            **settings,
        }

    def __enter__(self) -> Self:
        for name in ("conf", "queue", "data"):
            (self._directory / name).mkdir(parents=True)
        shutil.chown(self._directory / "data", "postfix")
        self._write_files()
        try:
            self._run("start")
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        command = ["postfix", "-c", str(self.config), "stop"]
        subprocess.run(command, capture_output=True, check=False)

    @property
    def pid(self) -> int:
        """The process id of its master."""
        return int((self._directory / "queue" / "pid" / "master.pid").read_text())

    def _write_files(self) -> None:
        shutil.copyfile(_SHIPPED / "main.cf.debian", self.config / "main.cf")
        changes = [f"{key}={value}" for key, value in self._settings.items()]
        subprocess.run(["postconf", "-c", str(self.config), "-e", *changes], check=True)
        master = (_SHIPPED / "master.cf.dist").read_text()
        listener = f"\n127.0.0.1:{self.smtp_port} inet"
        master = master.replace("\nsmtp      inet", listener, 1)
        assert listener in master, "master.cf.dist has no line for the SMTP listener"
        (self.config / "master.cf").write_text("\n".join((master, *self._services, "")))
        # what Debian's installer writes to /etc/aliases
        aliases = self.config / "aliases"
        aliases.write_text("postmaster: root\n")
        command = ["postalias", "-c", str(self.config), f"hash:{aliases}"]
        subprocess.run(command, check=True)

    def _run(self, verb: str) -> None:
        command = ["postfix", "-c", str(self.config), verb]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"postfix {verb} failed:\n{done.stdout}{done.stderr}{self._tail()}")

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"Postfix does not serve; its log ends with:\n{self._tail()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.smtp_port), timeout=5) as client:
                return client.recv(3) == b"220"
        except OSError:
            return False

    def _tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-2000:] if self.log_path.exists() else ""

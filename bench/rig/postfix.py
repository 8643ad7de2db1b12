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

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bench.rig.mta import PATIENCE_S, Mta
from bench.rig.processor_time import tree

_SHIPPED = Path("/usr/share/postfix")


class Postfix(Mta):
    """One Postfix that relays everything to a port of this machine.

    `directory` must be reachable for the user postfix. `settings` are added to main.cf,
    `services` are lines added to master.cf. Needs root.
    """

    name = "Postfix"
    roles: ClassVar = {"front": "smtpd cleanup", "delivery": "qmgr smtp"}
    speaks_postfix = True

    def __init__(
        self,
        directory: Path,
        relay_port: int,
        settings: Mapping[str, str] = {},
        services: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, relay_port)
        self.config = directory / "conf"
        self._services = services
        self._settings = {
            "queue_directory": str(self.spool),
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

    def prepare(self) -> None:
        if self.config.exists():
            return
        for place in (self.config, self.spool, self.directory / "data"):
            place.mkdir(parents=True)
        shutil.chown(self.directory / "data", "postfix")
        self._write_files()

    def command(self) -> list[str]:
        return ["postfix", "-c", str(self.config), "start-fg"]

    @property
    def pid(self) -> int:
        """The process id of its master."""
        return int((self.spool / "pid" / "master.pid").read_text())

    def kill_all(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):  # it did not come so far
            for pid in tree(self.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        super().kill_all()

    def stop(self) -> None:
        command = ["postfix", "-c", str(self.config), "stop"]
        subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S)
        assert self._process is not None
        self._process.wait(PATIENCE_S)
        self._process = None

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

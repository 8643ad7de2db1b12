"""Exim of Debian's exim4-daemon-light, as it comes but for names and paths; needs root.

bench/kill --mta bench/adapters/exim.py:Exim --front 0 --delivery 0 --supervisor 0 --all 20
bench/versus_postfix --against bench/adapters/exim.py:Exim --case accept-4k
"""

import shutil

from bench.rig.mta import Mta


class Exim(Mta):
    """One Exim; its processes have one name, so all are killed at once."""

    name = "Exim"

    def prepare(self) -> None:
        self.spool.mkdir(exist_ok=True)
        shutil.chown(self.spool, "Debian-exim", "Debian-exim")
        (self.directory / "exim.conf").write_text(
            f"exim_path = {shutil.which('exim4')}\nprimary_hostname = gw.bench.test\n"
            f"spool_directory = {self.spool}\nlog_file_path = {self.spool}/%slog\n"
            f"local_interfaces = 127.0.0.1\ndaemon_smtp_ports = {self.smtp_port}\n"
            "acl_smtp_rcpt = accept\ntls_advertise_hosts =\ndeliver_drop_privilege\n"
            "begin routers\nall:\n  driver = manualroute\n  transport = relay\n"
            "  route_list = * 127.0.0.1 byname\n  self = send\n"
            "begin transports\nrelay:\n  driver = smtp\n  allow_localhost\n"
            f"  port = {self.relay_port}\n"
            "begin retry\n* * F,1h,1s\n"
        )

    def command(self) -> list[str]:
        return ["exim4", "-C", str(self.directory / "exim.conf"), "-bdf", "-q1s"]

"""Real programs as providers: Postfix's smtp-sink, and a Postfix with STARTTLS and AUTH.

    with RealPostfix(tmp_path, users={"shop": "secret"}) as postfix:
        ... relay to 127.0.0.1:postfix.port, trusting postfix.ca_file ...
        postfix.wait_for_mail(1)

RealPostfix accepts anything for cust.test and puts it into a Maildir. It needs root, as Postfix
does, and the packages postfix, sasl2-bin and libsasl2-modules.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
import trustme

from tests.e2e.ports import free_port

_REALM = "postfix.test"
_PATIENCE_S = 90.0
_SMTP_SINK = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin") or "smtp-sink"

_MAIN = """
compatibility_level = 3.6
meta_directory = /etc/postfix
queue_directory = {base}/queue
data_directory = {base}/data
mail_owner = postfix
maillog_file = /dev/stdout
myhostname = mx.postfix.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = cust.test
virtual_mailbox_base = {base}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_chain_files = {base}/chain.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {base}/sasl
smtpd_sasl_local_domain = {realm}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_client_restrictions = permit_sasl_authenticated, reject
smtpd_delay_reject = yes
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
"""


class RealPostfix:
    """One Postfix instance with its own configuration, queue, users and certificate."""

    def __init__(self, directory: Path, *, users: Mapping[str, str]) -> None:
        self.ca_file = directory / "postfix-ca.pem"
        self.lines: list[str] = []
        self._users = users
        self._changed = threading.Condition()
        # not below pytest's own directories: those are closed to the postfix user
        self._base = Path(tempfile.mkdtemp(prefix="relaygw-postfix-"))
        self._maildir = self._base / "mail" / "all"
        self.port = free_port()

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip("Postfix is started by root only")
        try:
            self._write_files()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _write_files(self) -> None:
        account = pwd.getpwnam("postfix")
        self._base.chmod(0o755)
        for name in ("queue", "data", "mail", "sasl", "conf"):
            (self._base / name).mkdir()
        for name in ("data", "mail"):
            shutil.chown(self._base / name, "postfix")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        served = authority.issue_cert("127.0.0.1", "localhost")
        served.private_key_and_cert_chain_pem.write_to_path(self._base / "chain.pem")
        database = self._base / "sasl" / "sasldb2"
        (self._base / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN CRAM-MD5\n"
            f"sasldb_path: {database}\n"
        )
        for user, password in self._users.items():
            subprocess.run(
                ["saslpasswd2", "-p", "-c", "-f", database, "-u", _REALM, user],
                input=password.encode(),
                check=True,
            )
        shutil.chown(database, "postfix")
        facts = {
            "base": self._base,
            "port": self.port,
            "uid": account.pw_uid,
            "gid": account.pw_gid,
            "realm": _REALM,
        }
        (self._base / "conf" / "main.cf").write_text(_MAIN.format(**facts))
        (self._base / "conf" / "master.cf").write_text(_MASTER.format(**facts))

    def _start(self) -> None:
        self._process = subprocess.Popen(
            ["postfix", "-c", str(self._base / "conf"), "start-fg"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._follow)
        self._reader.start()
        self._wait_for(r"daemon started", 1)

    def _follow(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    def _wait_for(self, pattern: str, count: int) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        with self._changed:
            while sum(bool(re.search(pattern, line)) for line in self.lines) < count:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    raise AssertionError("\n".join((f"no {pattern!r} in:", *self.lines[-30:])))

    def wait_for_mail(self, count: int) -> list[bytes]:
        """Wait until `count` messages are in the mailbox; return them, Postfix's header on top."""
        self._wait_for(r"status=sent \(delivered to maildir\)", count)
        return [file.read_bytes() for file in (self._maildir / "new").iterdir()]

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_process"):
            # TERM to start-fg ends only the shell script around the master
            subprocess.run(
                ["postfix", "-c", str(self._base / "conf"), "stop"],
                stderr=subprocess.DEVNULL,
                check=False,
            )
            self._process.wait(_PATIENCE_S)
            self._reader.join(_PATIENCE_S)
        shutil.rmtree(self._base, ignore_errors=True)


@contextmanager
def smtp_sink(port: int, directory: Path) -> Iterator[None]:
    """Run Postfix's smtp-sink on a port; it writes each message into a file."""
    directory.mkdir()
    # as root it insists on being told whom to become
    user = ["-u", "root"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [_SMTP_SINK, *user, "-d", f"{directory}/mail.", f"127.0.0.1:{port}", "100"],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()

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
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.real_postfix import PostfixInstance

_REALM = "postfix.test"
_SMTP_SINK = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin") or "smtp-sink"

_MAIN = """myhostname = mx.postfix.test
mynetworks =
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
smtpd_sasl_local_domain = postfix.test
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_client_restrictions = permit_sasl_authenticated, reject
smtpd_delay_reject = yes
"""


class RealPostfix(PostfixInstance):
    """A Postfix with users and a certificate of its own."""

    def __init__(self, directory: Path, *, users: Mapping[str, str]) -> None:
        account = pwd.getpwnam("postfix")
        super().__init__(_MAIN.format(uid=account.pw_uid, gid=account.pw_gid, base="{base}"))
        self.ca_file = directory / "postfix-ca.pem"
        for name in ("mail", "sasl"):
            (self.base / name).mkdir()
        shutil.chown(self.base / "mail", "postfix")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        served = authority.issue_cert("127.0.0.1", "localhost")
        served.private_key_and_cert_chain_pem.write_to_path(self.base / "chain.pem")
        database = self.base / "sasl" / "sasldb2"
        (self.base / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN CRAM-MD5\n"
            f"sasldb_path: {database}\n"
        )
        for user, password in users.items():
            subprocess.run(
                ["saslpasswd2", "-p", "-c", "-f", database, "-u", _REALM, user],
                input=password.encode(),
                check=True,
            )
        shutil.chown(database, "postfix")

    def wait_for_mail(self, count: int) -> list[bytes]:
        """Wait until `count` messages are in the mailbox; return them, Postfix's header on top."""
        self.wait_for_log(r"status=sent \(delivered to maildir\)", count)
        return [file.read_bytes() for file in (self.base / "mail" / "all" / "new").iterdir()]


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

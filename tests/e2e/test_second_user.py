"""PHP's `mail()` as www-data into the sandbox of a developer whose home directory is closed.

It arrives, or `install-sendmail` fails, and what it names lets it arrive.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.e2e.checkout import DEBIAN, WEB_SERVER, Checkout
from tests.e2e.gateway import Gateway
from tests.rights import needs

_MENDS = re.compile(r"(chmod .*?)(?:, or set maildrop\.path to another place)?$")


def install(checkout: Checkout, gateway: Gateway) -> subprocess.CompletedProcess[str]:
    words = ["--config", str(gateway.config), "install-sendmail", "--prefix", str(checkout.prefix)]
    return subprocess.run(
        [*checkout.command(), *words],
        env=checkout.environment(gateway.environment),
        cwd=checkout.root,
        capture_output=True,
        text=True,
        check=False,
    )


@needs("root")
@pytest.mark.parametrize("has_own_python", [False, True])
def test_mail_of_another_user_arrives_once_what_is_named_was_done(has_own_python: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="relaygw-home-") as name:
        python = Path(name) / "home/python" / DEBIAN.name if has_own_python else DEBIAN
        checkout = Checkout(Path(name), python=python, mode=0o700)
        if has_own_python:
            python.parent.mkdir(mode=0o700)
            shutil.copy(DEBIAN, python)
        with Gateway(checkout.home, mode="sandbox") as gateway:
            gateway.wait_until((checkout.home / "maildrop/wake").exists, "a front at the maildrop")
            done = install(checkout, gateway)
            lines = done.stderr.splitlines()
            assert (done.returncode, len(lines)) == (77, 2 + has_own_python), done.stderr
            assert f'sendmail_path = "{checkout.prefix}/sbin/sendmail -t -i"' in done.stdout
            assert checkout.mail_of_web_server("lost").returncode == 1

            for line in lines:
                found = _MENDS.search(line)
                assert found is not None, line
                paths = [word for word in shlex.split(found[1]) if "/" in word]
                assert paths, line
                assert all(Path(one).is_relative_to(name) for one in paths), line
                subprocess.run(found[1], shell=True, check=True)
            done = install(checkout, gateway)
            assert (done.returncode, done.stderr) == (0, "")
            done = checkout.mail_of_web_server("found")
            assert done.returncode == 0, done.stderr
            gateway.wait_for_log(rf"uid={WEB_SERVER.pw_uid} ")
            newest = gateway.store.sandbox.captured_entry(None)
            assert newest is not None
            assert newest.entry.subject == "found"

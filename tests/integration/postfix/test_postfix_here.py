"""What import-postfix asks this host about its own Postfix, and about no copy of another's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.postfix.shapes import Shape
from tests.rights import needs

pytestmark = needs("mounts")
_HOST = "relayhost = [smtp.example.com]:587\nsmtp_tls_security_level = encrypt\n"
_BASE = "compatibility_level = 3.6\nmyhostname = gw.example.com\nmydestination = $myhostname\n"
_AT_HOME = 'mount --bind "$0" /etc/postfix && exec "$@"'
_OUTSIDE = "203.0.113.9"  # TEST-NET-3, no host has it


def rows(home: Path, *words: str, is_here: bool) -> list[dict[str, Any]]:
    """Import a directory as this host's own, or as a copy; return what is said."""
    directory = "/etc/postfix" if is_here else str(home)
    command = [sys.executable, "-m", "relaygw", "import-postfix", directory, "--json", *words]
    if is_here:
        command = ["unshare", "--mount", "sh", "-c", _AT_HOME, str(home), *command]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode in (0, 65), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (f"inet_interfaces = {_OUTSIDE}\n", f"no local interface found for {_OUTSIDE}"),
        (f"mynetworks = 127.0.0.0/8\ninet_interfaces = localhost, {_OUTSIDE}\n", _OUTSIDE),
        ("inet_interfaces = no-such-interface\n", "host not found: no-such-interface"),
        ("message_size_limit = large\n", "bad numerical configuration: message_size_limit = large"),
    ],
)
def test_nothing_is_the_same_as_at_a_postfix_that_does_not_start(
    values: str, problem: str, tmp_path: Path
) -> None:
    home = Shape("stopped", _HOST + values, base=_BASE).write(tmp_path)
    line = len((home / "main.cf").read_text().splitlines())
    (found,) = [
        row for row in rows(home, "--lint", is_here=True) if row["rule"] == "does-not-start"
    ]
    assert found["place"] == f"main.cf:{line}"
    assert problem in found["problem"]
    mails = [row for row in rows(home, "--dry-run", is_here=True) if row["kind"] == "mail"]
    assert {row["result"] for row in mails} == {"not the same", "sent by neither"}
    assert all("Postfix does not start with this line" in row["why"] for row in mails)


def test_what_its_port_is_given_counts_as_well(tmp_path: Path) -> None:
    home = Shape("port", _HOST, base=_BASE).write(tmp_path)
    master = home / "master.cf"
    words = f"smtpd -o inet_interfaces={_OUTSIDE}"
    master.write_text(master.read_text().replace(" smtpd\n", f" {words}\n", 1))
    number = next(n for n, line in enumerate(master.read_text().splitlines(), 1) if words in line)
    found = [row for row in rows(home, "--lint", is_here=True) if row["rule"] == "does-not-start"]
    assert [row["place"] for row in found] == [f"master.cf:{number}"]


def test_another_hosts_addresses_are_not_judged(tmp_path: Path) -> None:
    values = f"inet_interfaces = {_OUTSIDE}\n"
    home = Shape("copy", _HOST + values, base=_BASE).write(tmp_path)
    assert "does-not-start" not in {row["rule"] for row in rows(home, "--lint", is_here=False)}
    mails = [row for row in rows(home, "--dry-run", is_here=False) if row["kind"] == "mail"]
    assert "same" in {row["result"] for row in mails}


def test_addresses_and_names_of_this_host_are_as_they_are(tmp_path: Path) -> None:
    values = "mynetworks = 127.0.0.0/8\ninet_interfaces = localhost, 127.0.0.1\n"
    home = Shape("here", _HOST + values, base=_BASE).write(tmp_path)
    assert "does-not-start" not in {row["rule"] for row in rows(home, "--lint", is_here=True)}
    mails = [row for row in rows(home, "--dry-run", is_here=True) if row["kind"] == "mail"]
    assert "same" in {row["result"] for row in mails}


def test_mail_of_this_hosts_users_does_not_follow_luser_relay(tmp_path: Path) -> None:
    values = "luser_relay = catch@agency.example\nlocal_recipient_maps =\nalias_maps =\n"
    home = Shape("luser", _HOST + values, base=_BASE).write(tmp_path)
    user, other = "nobody@gw.example.com", "nobody-here@gw.example.com"
    for is_here, results in ((True, ["sent by neither", "same"]), (False, ["not proven"] * 2)):
        found = rows(
            home, "--dry-run", "--compare", f"a@shop.example,{user}",
            "--compare", f"a@shop.example,{other}", is_here=is_here,
        )  # fmt: skip
        mails = {row["recipient"]: row for row in found if row["kind"] == "mail"}
        assert [mails[to]["result"] for to in (user, other)] == results
        text = next(row["text"] for row in found if row["kind"] == "file")
        assert (f'"{user}": "{user}"' in text) is is_here
        assert '"root@gw.example.com": "root@gw.example.com"' in text
        assert '"@gw.example.com": "catch@agency.example"' in text
        said = " ".join(row["text"] for row in found if row["kind"] == "warning")
        assert "whom the host does not have goes to catch@agency.example, as at Postfix" in said
        assert ("mail for those it has" in said) is is_here
        assert ("a copy of its configuration does not say" in said) is not is_here
        assert "Postfix keeps this mail on this host" not in said

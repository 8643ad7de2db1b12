from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.errors import SettingsError
from relaygw.settings.tree import Place, read_tree
from relaygw_postfix.maillog import Logged, read_maillog
from relaygw_postfix.written import as_yaml, check_free, write_files

_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")))
_SIGNS = st.text(st.sampled_from("ab@:.#[]{}\"'*&!%-? ,~01"), max_size=12)
_SCALARS = st.one_of(_TEXT, _SIGNS, st.booleans(), st.integers(0, 10**6))
_VALUES = st.dictionaries(
    st.one_of(_SIGNS, st.sampled_from(["a", "@b.test", "yes"])).filter(bool),
    st.one_of(
        _SCALARS,
        st.lists(_SCALARS, max_size=12),
        st.dictionaries(_SIGNS.filter(bool), _SCALARS, max_size=3),
        st.lists(st.dictionaries(_SIGNS.filter(bool), _SCALARS, min_size=1, max_size=3)),
    ),
    max_size=5,
)


@given(_VALUES)
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    tree = read_tree(as_yaml(values, "a heading").encode(), Place("x"))
    assert (tree.problems, tree.values) == ([], values)


def test_files_are_written_whole_and_never_over_another(tmp_path: Path) -> None:
    file, secrets = tmp_path / "relaygw.yaml", tmp_path / "secrets"
    write_files(file, "mode: sandbox\n", {"one": "s3cret"}, secrets)
    assert (secrets / "one").read_text() == "s3cret\n"
    assert stat.S_IMODE((secrets / "one").stat().st_mode) == 0o600
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    with pytest.raises(FileExistsError):
        write_files(tmp_path / "other.yaml", "x", {"two": "x", "one": "x"}, secrets)
    assert (secrets / "one").read_text() == "s3cret\n"
    assert not (secrets / "two").exists()
    assert not (tmp_path / "other.yaml").exists()
    with pytest.raises(SettingsError, match="already exists; no file is overwritten"):
        check_free([file])
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="already exists"):
        check_free([tmp_path / "dangling"])
    with pytest.raises(SettingsError, match=r"relaygw.yaml, .*/secrets/one already exist"):
        check_free([file, secrets / "one", secrets / "two"])
    with pytest.raises(SettingsError, match="is not a directory; create it"):
        check_free([tmp_path / "none" / "relaygw.yaml"])


def test_a_directory_is_made_with_those_above_it(tmp_path: Path) -> None:
    file = tmp_path / "out/s1/relaygw.yaml"
    check_free([file], to_make=file.parent)
    write_files(file, "mode: sandbox\n", {}, file.parent / "secrets")
    assert file.read_text() == "mode: sandbox\n"


LOG = """\
Nov 25 08:45:18 gw postfix/qmgr[9]: 4F1B23C04D: from=<shop@a.test>, size=4271, nrcpt=2 (queue)
Nov 25 08:45:19 gw postfix/smtp[8]: 4F1B23C04D: to=<b@c.test>, relay=smtp.x.test[1.2.3.4]:587, \
delay=0.4, delays=0.01/0.01/0.2/0.18, dsn=4.7.0, status=deferred (host said: 451 status=sent)
2026-11-25T08:45:19+00:00 gw postfix/local[8]: 4F1B23C04D: to=<ops@gw.test>, orig_to=<root>, \
relay=local, delay=0.1, delays=0/0/0/0, dsn=2.0.0, status=sent (delivered to mailbox)
Nov 25 08:45:20 gw postfix/error[8]: 3x9Kq1PZ: to=<e@f.test>, relay=none, delay=0, delays=0/0/0/0, \
dsn=5.0.0, status=bounced (no)
Nov 25 08:45:21 gw postfix/smtpd[8]: NOQUEUE: reject: RCPT from localhost[127.0.0.1]: 554 5.7.1 \
<x@y.test>: Recipient address rejected: Access denied; from=<> to=<x@y.test> proto=ESMTP helo=<gw>
junk \x00 line
"""


SAID, MAILBOX = "host said: 451 status=sent", "delivered to mailbox"


def test_a_maillog_tells_of_deliveries() -> None:
    one, relay = "4F1B23C04D", "smtp.x.test[1.2.3.4]:587"
    assert list(read_maillog(LOG.splitlines())) == [
        Logged(one, "shop@a.test", "b@c.test", None, "smtp", relay, "deferred", SAID),
        Logged(one, "shop@a.test", "ops@gw.test", "root", "local", "local", "sent", MAILBOX),
        Logged("3x9Kq1PZ", None, "e@f.test", None, "error", "none", "bounced", "no"),
        Logged("NOQUEUE", "", "x@y.test", None, "smtpd", "none", "rejected", "Access denied"),
    ]

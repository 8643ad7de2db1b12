"""install-sendmail: what it puts in place, what it leaves alone, and that it works."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from relaygw.cli import main
from relaygw.cli.frame import CommandFailed
from relaygw.cli.install_sendmail import LINKS, Programs, php_lines


def install(prefix: Path, tmp_path: Path, *, force: bool = False) -> list[str]:
    programs = Programs(prefix)
    maildrop = str(tmp_path / "maildrop")
    return list(programs.install(maildrop=maildrop, group=None, state_dir=tmp_path, force=force))


def test_what_was_installed_takes_mail(tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    lines = install(prefix, tmp_path)
    assert any(str(prefix / "sbin/sendmail") in line for line in lines)
    done = subprocess.run(
        [prefix / "sbin/sendmail", "-t", "-i"],
        input=b"To: b@cust.test\nSubject: x\n\nhello\n",
        env={},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    (left,) = (tmp_path / "maildrop").glob("*.drop")
    assert b"\nto b@cust.test\n" in left.read_bytes()
    assert stat.S_IMODE((tmp_path / "maildrop").stat().st_mode) == 0o3733


def test_newaliases_does_nothing_and_says_so_by_its_exit_code(tmp_path: Path) -> None:
    install(tmp_path / "usr", tmp_path)
    done = subprocess.run([tmp_path / "usr/bin/newaliases"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_installing_twice_changes_nothing(tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    assert install(prefix, tmp_path) == install(prefix, tmp_path)


def test_another_mailer_is_not_overwritten(tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    theirs = prefix / "sbin/sendmail"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    with pytest.raises(CommandFailed, match="--force"):
        install(prefix, tmp_path)
    assert theirs.read_text() == "#!/bin/sh\n"
    assert not (prefix / "bin").exists()


def test_another_mailer_comes_back(tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    theirs, link = prefix / "sbin/sendmail", prefix / "lib/sendmail"
    for path in (theirs, link):
        path.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    link.symlink_to("../sbin/sendmail")
    install(prefix, tmp_path, force=True)
    assert theirs.is_symlink()
    list(Programs(prefix).remove())
    assert theirs.read_text() == "#!/bin/sh\n"
    assert link.readlink() == Path("../sbin/sendmail")
    assert sorted(path.name for path in prefix.rglob("*") if path.is_file()) == ["sendmail"] * 2


def test_mail_that_is_left_in_the_maildrop_is_told(tmp_path: Path) -> None:
    install(tmp_path / "usr", tmp_path)
    (tmp_path / "maildrop" / f"{'0' * 32}.drop").touch()
    *_, last = Programs(tmp_path / "usr").remove()
    assert last.startswith(f"1 message in {tmp_path / 'maildrop'} left to send: let relaygw serve")


def test_removing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    install(prefix, tmp_path)
    link = prefix / "bin/mailq"
    link.unlink()
    link.write_text("somebody else's\n")
    list(Programs(prefix).remove())
    assert link.read_text() == "somebody else's\n"
    assert not any(os.path.lexists(prefix / name) for name in LINKS if name != "bin/mailq")


def test_what_keeps_other_users_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        root.chmod(0o755)
        closed, programs = root / "home", Programs(root / "usr")
        maildrop, interpreter = closed / "state/maildrop", closed / "python3"
        closed.mkdir()
        interpreter.write_bytes(b"")
        list(programs.install(maildrop=str(maildrop), group=None, state_dir=root, force=False))
        monkeypatch.setattr(sys, "_base_executable", str(interpreter))

        def doubts(group: str | None = None) -> list[str]:
            found = programs.doubts(str(maildrop), group)
            return [one for one in found if str(root) in one]

        assert doubts() == []
        maildrop.chmod(0o3730)
        (at_maildrop,) = doubts()
        assert f"cannot write to {maildrop}: {maildrop} has mode 3730" in at_maildrop
        assert doubts(group="mail") == []
        closed.chmod(0o700)
        at_interpreter, at_maildrop = doubts(group="mail")
        assert f"{interpreter}, is below {closed}, which has mode 0700" in at_interpreter
        assert f"write to {maildrop}: {closed} has mode 0700; chmod o+x" in at_maildrop


def test_the_command_fails_for_it(tmp_path: Path) -> None:
    config = tmp_path / "relaygw.yaml"
    config.write_text(f"mode: sandbox\nmaildrop: {{path: {tmp_path}/home/maildrop}}\n")
    (tmp_path / "home").mkdir(mode=0o700)
    words = ["--config", str(config), "install-sendmail", "--prefix", str(tmp_path / "usr")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == os.EX_NOPERM
    assert "sendmail_path" in result.stdout
    assert f"cannot write to {tmp_path}/home/maildrop: " in " ".join(result.stderr.split())


def test_a_maildrop_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "maildrop")
    with pytest.raises(CommandFailed, match="Not a directory; no mail is accepted") as refused:
        install(tmp_path / "usr", tmp_path)
    assert refused.value.exit_code == os.EX_CANTCREAT


@pytest.mark.skipif(shutil.which("php") is None, reason="PHP reads it")
def test_php_reads_a_prefix_of_any_signs(tmp_path: Path) -> None:
    prefix = tmp_path / 'it\'s a "place" of 100%'
    ini = tmp_path / "php.ini"
    ini.write_text("\n".join(php_lines(prefix)))
    show = ["php", "-n", "-c", str(ini), "-r", 'echo ini_get("sendmail_path");']
    command = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    assert shlex.split(command) == [f"{prefix}/sbin/sendmail", "-t", "-i"]
    path, names = php_lines(Path("/usr"))
    assert path == '  sendmail_path = "/usr/sbin/sendmail -t -i"'
    assert names.startswith("  mail.add_x_header = On  ; ")

"""Commands about a gateway that runs under another user, configuration and state directory."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import relaygw as relaygw_package
from tests.e2e.gateway import Gateway
from tests.forked import run_relaygw
from tests.queues import make_queue
from tests.rights import needs

SERVICE = "nobody"
AS_SERVICE = [
    "setpriv", f"--reuid={SERVICE}", "--clear-groups",
    # the interpreter of a test may lie where only root may look; what it runs is copied
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "run"
    monkeypatch.setenv("RELAYGW_RUN_DIR", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "usual"))
    monkeypatch.delenv("RELAYGW_CONFIG", raising=False)
    return directory


def relaygw(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that names no configuration."""
    return run_relaygw([*words], capture_output=True, text=True, check=False)


@pytest.fixture
def service(run_dir: Path) -> Iterator[Gateway]:
    """A gateway of a user of its own, as systemd starts it with RuntimeDirectory=."""
    uid = pwd.getpwnam(SERVICE).pw_uid
    with tempfile.TemporaryDirectory() as name:  # tmp_path is for this user alone
        directory = Path(name)
        (directory / "state").mkdir()
        run_dir.mkdir()
        for one in (directory, directory / "state", run_dir):
            os.chown(one, uid, -1)
        package = Path(relaygw_package.__file__).parent
        for source in (package, package.parent / "migrations"):
            shutil.copytree(source, directory / "src" / source.name)
        from_copy = ["env", f"--chdir={directory}", f"PYTHONPATH={directory / 'src'}"]
        from_copy.append("KEY_OF_THE_SERVICE=k")
        gateway = Gateway(directory, mode="sandbox", before=[*AS_SERVICE, *from_copy])
        gateway.write_config()
        os.chown(gateway.config, uid, -1)
        with gateway:
            yield gateway


@needs("root")
def test_root_checks_secrets_as_the_service_has_them(
    service: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has capabilities, which its user elsewhere has not."""
    config = yaml.safe_load(service.config.read_text())
    login = {"host": "smtp.example.com", "username": "u"}
    config["providers"] = {
        "a": {**login, "password": "env:KEY_OF_THE_SERVICE"},
        "b": {**login, "password": "env:KEY_OF_ROOT"},
    }
    service.config.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KEY_OF_ROOT", "k")
    said = relaygw("check", "--config", str(service.config)).stderr
    assert "KEY_OF_THE_SERVICE" not in said, said
    assert "no variable KEY_OF_ROOT" in said


@needs("root")
def test_root_sees_the_queue_of_the_service_and_is_told_so(
    service: Gateway, tmp_path: Path
) -> None:
    queue_id = service.send("shop@a.test", ["c@b.test"], b"Subject: x\r\n\r\nhello\r\n")
    service.wait_for_roles()
    said = relaygw("status")
    assert said.returncode == 0, said
    assert said.stderr == f"relaygw: using the gateway of user nobody: {service.config}\n"
    assert "delivery" in said.stdout
    assert "1 captured" in said.stdout
    listed = relaygw("queue", "list", "--state", "all")
    assert queue_id in listed.stdout
    assert str(service.config) in listed.stderr
    changed = relaygw("queue", "retry", "--all", "--yes")
    assert (changed.returncode, changed.stdout) == (0, "0 messages due now\n")
    assert str(service.config) in changed.stderr
    mbox = tmp_path / "more.mbox"
    mbox.write_bytes(b"From shop@a.test Sun Nov 29 02:00:00 2026\nTo: d@b.test\n\nhello\n")
    imported = relaygw("queue", "import", "--recipient", "d@b.test", str(mbox))
    assert imported.stdout.startswith("1 message imported"), imported
    sent = relaygw("send-test", "--to", "e@b.test")
    assert (sent.returncode, str(service.config) in sent.stderr) == (0, True), sent
    assert relaygw("queue", "list", "--state", "all").stdout.count("@b.test") == 3
    named = relaygw("--config", str(service.config), "status")
    assert named.stderr == ""

    assert service.stop() == 0
    assert relaygw("status").returncode == os.EX_UNAVAILABLE, "there is no queue of root's own"


def test_several_gateways_are_named_and_one_must_be_chosen(tmp_path: Path, run_dir: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    providers = {"p": {"host": "127.0.0.1", "port": 1, "tls": "none"}}
    with Gateway(tmp_path / "one", mode="sandbox", providers=providers) as one:
        with Gateway(tmp_path / "two", mode="sandbox") as two:
            refused = relaygw("queue", "list")
            assert refused.returncode == os.EX_UNAVAILABLE, refused
            assert str(one.config) in refused.stderr
            assert str(two.config) in refused.stderr
            assert "--config" in refused.stderr
            two.kill_all()
        assert relaygw("queue", "list").returncode == 0, "one that was killed does not count"
        good = one.config.read_text()
        one.config.write_text(f"{good}\nnonsense: 1\n")
        used = relaygw("status")
        assert used.returncode == 0, used
        assert "nonsense" in used.stderr
        assert f"{one.config} runs with" in used.stderr
        one.config.write_text(good)
        assert relaygw("classify", "p", "451 4.7.1 later").returncode == 0, "its provider is known"
        one.config.rename(tmp_path / "elsewhere.yaml")
        used = relaygw("status")
        assert used.returncode == 0, used
        assert "cannot be read" in used.stderr
        assert run_dir.stat().st_mode & 0o777 == 0o755


def test_mail_of_a_queue_that_nobody_runs_is_told_beside_the_gateway(
    tmp_path: Path, run_dir: Path
) -> None:
    usual = tmp_path / "usual/relaygw/queue.db"
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    # the usual queue, with mail that waits for a provider
    own = Gateway(
        tmp_path / "own",
        queue={"url": f"sqlite:///{usual}", "min_free": "0%"},
        providers={"p": {"host": "127.0.0.1", "port": 1, "tls": "none"}},
    )
    with own:
        own.send("shop@a.test", ["c@b.test"], b"Subject: x\r\n\r\nhello\r\n")
        listed = relaygw("queue", "list")
        assert listed.stderr == f"relaygw: using the gateway of user root: {own.config}\n"
    with Gateway(tmp_path / "other", mode="sandbox") as other:
        said = relaygw("queue", "list")
    assert said.returncode == 0, said
    assert str(other.config) in said.stderr
    assert f"mail waits in sqlite:///{usual}" in said.stderr


def test_a_queue_that_was_replaced_under_it_is_told(run_dir: Path, tmp_path: Path) -> None:
    with Gateway(tmp_path, mode="sandbox") as gateway:
        gateway.wait_for_roles()
        words = ("--config", str(gateway.config), "status")
        assert "not on this file" not in relaygw(*words).stderr
        database = tmp_path / "state/queue.db"
        make_queue(f"sqlite:///{tmp_path}/other/queue.db")
        (tmp_path / "other/queue.db").replace(database)
        for end in ("-wal", "-shm"):
            Path(f"{database}{end}").unlink(missing_ok=True)
        told = relaygw(*words).stderr
        assert "runs (pid " in told
        assert "but not on this file: it was replaced" in told

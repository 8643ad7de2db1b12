"""What `relaygw setup` asks of a host before it writes and starts anything, and who reads it."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relaygw import service_file
from relaygw.cli import main, setup_host, setup_steps
from relaygw.errors import SettingsUnreadable
from relaygw.service_file import RunningGateway
from relaygw.settings import secrets
from relaygw.settings.load import LoadedSettings, load_settings
from tests.integration.cli.conftest import Desk
from tests.rights import needs

STAGING = "--use staging --host mx.test --username u --sender a@shop.test --allow @qa.test --yes"
KEY = "SG.canary-key"


class Setup:
    """Setups of one directory, with the variables of a caller."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "etc/relaygw.yaml"
        self.config.parent.mkdir()
        self.secret = self.config.parent / "secrets/main"
        self.environ = {"XDG_STATE_HOME": str(directory / "state")}

    def run(self, *more: str, key: str = KEY) -> Result:
        words = [*STAGING.split(), "--offline", "--no-sendmail", *more]
        argv = ["--config", str(self.config), "setup", *words]
        return CliRunner().invoke(main, argv, input=f"{key}\n", env=self.environ)

    def put_beside(self, text: str) -> None:
        part = self.config.parent / "conf.d/10-live.yaml"
        part.parent.mkdir()
        part.write_text(text)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def by_part(setup: Setup) -> str:
    setup.put_beside("mode: production\n")
    return "mode is set by conf.d/10-live.yaml:1"


def by_variable(setup: Setup) -> str:
    setup.environ["RELAYGW__MODE"] = "production"
    return "mode is set by environment RELAYGW__MODE"


def by_list(setup: Setup) -> str:
    setup.environ["RELAYGW__RECIPIENTS"] = '{allow: ["@shop.test"]}'
    return "recipients.allow is set by environment RELAYGW__RECIPIENTS"


@pytest.mark.parametrize("overlay", [by_part, by_variable, by_list])
def test_what_something_else_lays_over_it_is_named_and_nothing_is_written(
    setup: Setup, overlay: Callable[[Setup], str]
) -> None:
    said = overlay(setup)
    for words in ([], ["--dry-run"]):
        done = setup.run(*words)
        assert (done.exit_code, said in done.stderr) == (73, True), done.output
        assert not setup.config.exists()
        assert not setup.secret.exists()


@pytest.mark.parametrize("key", ["SESPW", "SES/PW", "/SESPW"])
def test_a_key_in_place_of_its_file_is_not_shown(setup: Setup, key: str) -> None:
    done = setup.run("--key-file", key)
    assert (done.exit_code, key in done.output) == (66, False)
    said = "--key-file (the value is not shown): No such file or directory; name a file that holds"
    assert said in done.stderr


def test_an_interrupted_setup_says_what_stays(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup_steps, "check_settings", interrupted)
        done = setup.run()
    said = f"interrupted; {setup.config} and its secrets stay: run relaygw setup again for the rest"
    assert (done.exit_code, said in done.stderr) == (130, True), done.output
    assert setup.secret.exists()
    assert setup.run().exit_code == 0


def test_a_second_run_without_answers_looks_at_mode_and_recipients(setup: Setup) -> None:
    assert setup.run().exit_code == 0
    assert setup.run().exit_code == 0
    by_part(setup)
    argv = ["--config", str(setup.config), "setup", "--offline", "--no-sendmail"]
    done = CliRunner().invoke(main, argv, env=setup.environ)
    assert (done.exit_code, "mode is set by conf.d/10-live.yaml:1" in done.stderr) == (73, True)


def test_variables_of_the_service_are_looked_at_and_told_by_check(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "environment"
    monkeypatch.setattr(setup_host, "DEFAULT_FILE", setup.config)
    monkeypatch.setattr(setup_host, "has_units", lambda: True)
    shown = ["Environment=XDG_STATE_HOME=/var/lib", f"EnvironmentFiles={file} (ignore_errors=yes)"]
    monkeypatch.setattr(setup_host, "shown_of_service", lambda *_: shown)
    monkeypatch.setattr(setup_host, "is_enabled", lambda: True)
    reloaded: list[LoadedSettings] = []
    monkeypatch.setattr(setup_host, "reload_service", reloaded.append)
    assert setup.run().exit_code == 0
    argv = ["--config", str(setup.config), "check"]
    state_dir = Path(setup.environ["XDG_STATE_HOME"]) / "relaygw"
    assert [loaded.state_dir for loaded in reloaded] == [state_dir]
    assert "the service has" not in CliRunner().invoke(main, argv, env=setup.environ).stderr

    file.write_text("# of old\nRELAYGW__MODE='production'\n")
    done = setup.run()
    said = f"mode is set by environment RELAYGW__MODE in {file}"
    assert (done.exit_code, said in done.stderr) == (73, True), done.stderr
    told = CliRunner().invoke(main, argv, env=setup.environ).stderr
    assert "mode: the service has another value, production, from environment RELAYGW__MODE" in told
    file.write_text("RELAYGW_CONFIG=/etc/other.yaml\n")
    done = setup.run()
    assert f"the whole file is replaced by RELAYGW_CONFIG in {file}" in done.stderr


def test_status_tells_the_mode_that_runs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def running(mode: str) -> None:
        one = RunningGateway(
            pid=4711, user="r", config="", queue=desk.url, state_dir="/s", mode=mode
        )
        monkeypatch.setattr(service_file, "running_gateways", lambda _: [one])

    for mode in ("production", ""):
        running(mode)
        done = desk.run("status")
        assert ", mode production, " in done.stdout
        assert "the gateway runs in mode" not in done.stderr
    running("staging")
    done = desk.run("status")
    assert ", mode staging, " in done.stdout
    assert "the gateway runs in mode staging, but the configuration read" in done.stderr
    assert desk.lines("status", "--json")[0]["mode"] == "staging"


@needs("root")
def test_a_key_without_a_configuration_is_taken(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (setup_host, secrets):
        monkeypatch.setattr(module, "SERVICE_USER", "www-data")
    assert setup.run().exit_code == 0
    setup.config.unlink()
    done = setup.run(key="SG.other")
    assert (done.exit_code, "holds another key than the one given" in done.stderr) == (73, True)
    done = setup.run()
    assert done.exit_code == 0, done.stderr
    os.chown(setup.secret, 1, 1)
    setup.config.unlink()
    done = setup.run()
    assert f"run: chown www-data {setup.secret}" in done.stderr


def test_who_may_not_read_the_configuration_is_told_what_to_do(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    remedy = "run it as root or as relaygw's user, or name a file of your own with --config"
    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(SettingsUnreadable, match=remedy):
        load_settings(config=None, environ={})
    monkeypatch.undo()
    monkeypatch.setattr("relaygw.settings.load.content_of", denied)
    for words in ("status", "queue list", "check", "config show", "db backup x", "serve"):
        done = desk.run(*words.split())
        told = f"relaygw: {desk.config}: Permission denied; {remedy}\n"
        assert (done.exit_code, done.stderr) == (77, told), words
    done = desk.run("install-sendmail", "--prefix", "/tmp/none")
    assert (done.exit_code, done.stderr) == (77, told)


def test_parts_that_may_not_be_listed_are_not_left_out(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.config.write_text("mode: sandbox\n")
    by_part(setup)
    setup.config.parent.chmod(0o755)

    def denied(_path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(SettingsUnreadable, match=r"conf\.d: Permission denied"):
        load_settings(config=setup.config, environ={"HOME": "/"})


def test_a_pipe_is_no_configuration(setup: Setup) -> None:
    os.mkfifo(setup.config)
    done = setup.run()
    assert done.exit_code == 73
    done = CliRunner().invoke(main, ["--config", str(setup.config), "check"], env=setup.environ)
    assert done.exit_code == 78
    assert "is a pipe, and is read more than once; name a regular file" in done.stderr


def test_a_configuration_without_end_is_not_read_to_it() -> None:
    limit_bytes = 600 * 2**20  # without a limit it would take all memory that there is
    done = subprocess.run(
        [sys.executable, "-m", "relaygw", "--config", "/dev/zero", "check"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes)),
        capture_output=True,
        timeout=90,
    )
    assert done.returncode == 78, done.stderr
    assert b"longer than 1048576 bytes" in done.stderr


def test_secrets_go_into_no_directory_of_others(setup: Setup) -> None:
    setup.secret.parent.mkdir()
    setup.secret.parent.chmod(0o777)
    done = setup.run()
    assert (done.exit_code, "has mode 0777, so others could replace" in done.stderr) == (73, True)
    setup.secret.parent.rmdir()
    setup.secret.parent.symlink_to(setup.config.parent)
    done = setup.run()
    assert (done.exit_code, "is a symbolic link" in done.stderr) == (73, True)
    assert done.stderr.endswith("or name another place with --config\n")
    assert not setup.config.exists()


def test_an_empty_prefix_is_refused(setup: Setup) -> None:
    for words in (["install-sendmail"], ["setup"]):
        done = CliRunner().invoke(main, [*words, "--prefix", ""], env=setup.environ)
        assert (done.exit_code, "is empty; name a directory" in done.stderr) == (64, True)


def test_a_sendmail_command_with_another_maildrop_is_told(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules["relaygw.cli.install_sendmail"], "_PREFIXES", (str(tmp_path / "usr"),)
    )
    assert desk.run("install-sendmail", "--prefix", str(tmp_path / "usr")).exit_code in (0, 77)
    for command in ("check", "status"):
        assert "leaves mail in" not in desk.run(command).stderr
    said = re.compile(
        rf"warning: users other than .* cannot write to .*{tmp_path}/maildrop, or set"
    )
    for mode, is_told in ((0o3733, False), (0o700, True)):
        (tmp_path / "maildrop").chmod(mode)
        assert (said.search(desk.run("check").stderr) is not None) is is_told
    text = desk.config.read_text().replace("/maildrop", "/another")
    desk.config.write_text(text)
    for command in ("check", "status"):
        told = desk.run(command).stderr
        assert f"leaves mail in {tmp_path}/maildrop, and maildrop.path is {tmp_path}/ano" in told

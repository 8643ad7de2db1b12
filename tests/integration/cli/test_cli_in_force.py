"""Commands beside a gateway whose configuration has a mistake since: they use what it runs with."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.settings.in_force import keep_settings
from relaygw.settings.load import load_settings
from tests.e2e.gateway import PATIENCE_S, Gateway
from tests.e2e.ports import fixed_binds
from tests.forked import run_relaygw
from tests.tables import each_of

HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21l$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo"
PROVIDER = {"host": "127.0.0.1", "port": 1, "tls": "none", "username": "u"}
SECTIONS = {
    "providers": {
        "written": {**PROVIDER, "password": "plain:written-secret"},
        "asked": {**PROVIDER, "password": "command:touch {ran} by-name"},
    },
    "routes": [{"name": "default", "providers": ["written", "asked"]}],
    "web": {"users": [{"name": "anna", "password_hash": HASH, "role": "admin"}]},
}
MISTAKES = {
    "half edited": lambda config: config.write_text(config.read_text()[:-20] + "\n  - [x"),
    "a wrong key": lambda config: config.write_text(f"{config.read_text()}\nnonsense: 1\n"),
    "a wrong mode": lambda config: config.write_text(
        config.read_text().replace("production", "producton")
    ),
    "moved away": lambda config: config.rename(config.with_suffix(".old")),
}
COMMANDS = {
    "status": ["status"],
    "list": ["queue", "list"],
    "hold": ["provider", "hold", "written", "--reason", "a test"],
    "release": ["provider", "release", "written"],
    "users": ["users", "list"],
    "find": ["find", "nobody@cust.test"],
}


class UsualGateway(Gateway):
    """Has its queue where one without a file has it."""

    queue_url = staticmethod(lambda directory: f"sqlite:///{directory}/state/relaygw/queue.db")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ran") / "file"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, ran: Path) -> Iterator[Gateway]:
    sections = json.loads(json.dumps(SECTIONS).replace("{ran}", str(ran)))
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "state").mkdir()
    with UsualGateway(directory, mode="production", **sections) as gateway:
        gateway.wait_for_roles()
        yield gateway


@pytest.fixture
def mistake(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[None]:
    good = gateway.config.read_text()
    MISTAKES[request.param](gateway.config)
    yield
    gateway.config.write_text(good)
    gateway.config.chmod(0o600)


def relaygw(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    return run_relaygw([*words], capture_output=True, text=True, check=False, env=environment)


def kept_by(gateway: Gateway) -> Path:
    queue = gateway.settings["queue"]["url"].removeprefix("sqlite:///")
    return Path(queue).parent / "settings-in-force.json"


@pytest.mark.parametrize("mistake", MISTAKES, indirect=True)
@each_of("command", COMMANDS)
@pytest.mark.usefixtures("mistake")
def test_what_looks_at_mail_or_holds_it_works(gateway: Gateway, command: str) -> None:
    done = relaygw("--config", str(gateway.config), *COMMANDS[command])
    assert done.returncode == 0, done
    (line,) = [one for one in done.stderr.splitlines() if "runs with" in one]
    assert str(gateway.config) in line
    assert "using the settings that the gateway of user" in line


@pytest.mark.parametrize("mistake", ["a wrong key"], indirect=True)
@pytest.mark.usefixtures("mistake")
def test_however_its_file_is_named(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELAYGW_CONFIG", raising=False)
    ways = (
        relaygw("queue", "list"),
        relaygw("queue", "list", RELAYGW_CONFIG=str(gateway.config)),
        relaygw("queue", "list", "--config", os.path.relpath(gateway.config)),
    )
    for done in ways:
        assert done.returncode == 0, done
        assert "nonsense" in done.stderr
        assert "runs with" in done.stderr


@pytest.fixture
def without_file(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As that of a package: without its file a sandbox with the same queue is meant."""
    monkeypatch.delenv("RELAYGW_CONFIG", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(kept_by(gateway).parents[1]))
    away = gateway.config.rename(gateway.config.with_suffix(".old"))
    yield
    away.rename(gateway.config)


@pytest.mark.usefixtures("without_file")
def test_its_file_is_gone_and_its_queue_the_usual(gateway: Gateway) -> None:
    done = relaygw("provider", "hold", "written")
    assert done.returncode == 0, done
    assert f"{gateway.config}: " in done.stderr
    assert "using the settings that the gateway of user" in done.stderr
    assert relaygw("provider", "release", "written").returncode == 0
    for words in (["check"], ["config", "show"]):
        done = relaygw(*words)
        assert done.returncode == os.EX_CONFIG, done
        assert f"{gateway.config}: is gone" in done.stderr


def test_its_file_is_gone_and_it_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = tmp_path / "relaygw.yaml", tmp_path / "relaygw"
    config.write_text("mode: staging\nrelay_to: ['smtp://gw.test:25']\n")
    state.mkdir()
    keep_settings(load_settings(config=config, environ={"XDG_STATE_HOME": str(tmp_path)}))
    monkeypatch.delenv("RELAYGW_CONFIG", raising=False)
    alone = {"XDG_STATE_HOME": str(tmp_path), "RELAYGW_RUN_DIR": str(tmp_path / "run")}
    for words in (["check"], ["config", "show"], ["serve"], ["status"], ["queue", "list"]):
        done = relaygw(*words, **alone)
        assert done.returncode == os.EX_CONFIG, done
        assert "is not there, and the gateway of this queue ran in mode staging" in done.stderr
    meant = relaygw("status", **alone, RELAYGW__MODE="sandbox")
    assert "is not there" not in meant.stderr


@pytest.mark.usefixtures("without_file")
def test_without_its_file_no_production_becomes_a_sandbox() -> None:
    done = relaygw("serve", "--role", "web")
    assert done.returncode == os.EX_CONFIG, done
    assert "is not there, and the gateway of this queue ran in mode production" in done.stderr


_SERVE = """
import sys
from pathlib import Path
from relaygw.cli import main
from relaygw.settings.load import load_settings
load_settings.__kwdefaults__["default_file"] = Path(sys.argv[1])
main(["serve"])
"""


def test_a_reload_without_its_file_makes_no_sandbox_of_it(tmp_path: Path) -> None:
    """By a signal, which no check goes before."""
    config, log = tmp_path / "relaygw.yaml", tmp_path / "log"
    binds = fixed_binds()
    config.write_text(
        json.dumps(
            {"mode": "production", **SECTIONS, **binds, "maildrop": {"path": f"{tmp_path}/drop"}}
        )
    )
    config.chmod(0o600)  # it has a password
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "RELAYGW_CONFIG": ""}

    def wait_for(text: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in log.read_text():
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)

    with log.open("w") as output:
        serving = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(config)], env=environ, stdout=output, stderr=output
        )
    try:
        wait_for("started: ")
        config.rename(tmp_path / "away.yaml")
        serving.send_signal(signal.SIGHUP)
        wait_for("reload refused, the old settings stay")
        assert "and the gateway of this queue ran in mode production" in log.read_text()
    finally:
        serving.terminate()
        assert serving.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("mistake", MISTAKES, indirect=True)
@pytest.mark.usefixtures("mistake")
def test_check_serve_and_show_fail(gateway: Gateway) -> None:
    for words in (["check"], ["serve"], ["config", "show"]):
        done = relaygw("--config", str(gateway.config), *words)
        assert done.returncode == os.EX_CONFIG, done
        assert "runs with" not in done.stderr


@pytest.mark.parametrize("mistake", ["a wrong key"], indirect=True)
@pytest.mark.usefixtures("mistake")
def test_another_broken_file_is_not_its_settings(gateway: Gateway, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("nonsense: 1\n")
    done = relaygw("--config", str(other), "queue", "list")
    assert done.returncode == os.EX_CONFIG, done
    assert "runs with" not in done.stderr


@pytest.mark.parametrize("mistake", ["a wrong key"], indirect=True)
@pytest.mark.usefixtures("mistake")
def test_no_secret_is_left_and_nothing_is_run(gateway: Gateway, ran: Path) -> None:
    kept = kept_by(gateway)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    text = kept.read_text()
    for secret in ("written-secret", "by-name", HASH):
        assert secret not in text
    wanted = json.loads(text)
    wanted["providers"]["asked"]["password"] = f"command:touch {ran}"
    wanted["alerts"] = [{"command": ["touch", str(ran)]}]
    kept.write_text(json.dumps(wanted))
    try:
        done = relaygw("--config", str(gateway.config), "alerts", "test")
        assert done.returncode == os.EX_CONFIG
        assert "alerts.1.command: left out" in done.stderr
        assert relaygw("--config", str(gateway.config), "provider", "list").returncode == 0
    finally:
        kept.write_text(text)
    assert not ran.exists()


@pytest.mark.parametrize("mistake", ["a wrong key"], indirect=True)
@pytest.mark.usefixtures("mistake")
@each_of("left", ["nothing", "no JSON", "a list", "deep", "a pipe", "of another version"])
def test_without_settings_of_use_the_mistake_is_what_is_said(gateway: Gateway, left: str) -> None:
    kept = kept_by(gateway)
    good = kept.read_text()
    kept.unlink()
    match left:
        case "no JSON":
            kept.write_text("{")
        case "a list":
            kept.write_text("[]")
        case "deep":
            kept.write_text("[" * 100_000)
        case "a pipe":
            os.mkfifo(kept)
        case "of another version":
            kept.write_text(good.replace('"mode"', '"mood"'))
    try:
        done = relaygw("--config", str(gateway.config), "queue", "list")
    finally:
        kept.unlink(missing_ok=True)
        kept.write_text(good)
    assert done.returncode == os.EX_CONFIG, done
    assert "nonsense" in done.stderr

"""docker/compose.yaml: what it says fits the Dockerfile, and its services play together.

Without an engine the services are processes on one host: the same configuration files, with
the names of hosts replaced by addresses.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaygw.cli import main as cli
from relaygw.settings.load import load_settings
from relaygw.store import migrate
from tests.e2e.gateway import Gateway
from tests.e2e.image.dockerfile import healthcheck, inherited, json_words, read_stages
from tests.e2e.ports import free_port
from tests.e2e.sendmail_rig import Installation

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
STAGES = read_stages(DOCKER / "Dockerfile")
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
CONFIG = "/etc/relaygw/relaygw.yaml"


def mounts(service: Mapping[str, Any]) -> dict[str, str]:
    """Return what lies where in a container, by its path."""
    pairs = (volume.split(":") for volume in service.get("volumes", []))
    return {target: source for source, target, *_ in pairs}


def config_of(name: str) -> Path:
    """Return the configuration file of a service."""
    return DOCKER / mounts(SERVICES[name]).get(CONFIG, "relaygw.yaml")


@pytest.mark.parametrize("name", ["relaygw.yaml", "gateway.yaml", "spool.yaml"])
def test_each_configuration_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["relaygw", "--config", str(DOCKER / name), "check"])
    with pytest.raises(SystemExit) as ended:
        cli()
    assert ended.value.code in (0, None)


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_built_from_a_stage_that_is_there(name: str) -> None:
    build = OURS[name]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert build["target"] in STAGES


@pytest.mark.parametrize("name", [n for n in OURS if OURS[n].get("hostname")])
def test_ports_of_the_configuration_are_those_of_the_image(name: str) -> None:
    settings = load_settings(config=config_of(name), environ={"HOME": "/"}).settings
    exposed = inherited(STAGES, "relaygw", "EXPOSE")
    assert exposed is not None
    in_use = {settings.listeners[0].bind.port, settings.web.bind.port}
    assert {int(port) for port in exposed.text.split()} == in_use
    published = {int(port.rpartition(":")[2]) for port in SERVICES[name].get("ports", [])}
    assert published <= in_use
    check = healthcheck(STAGES, "relaygw")
    assert check is not None and str(settings.web.bind.port) in check[-1]
    assert all(port > 1023 for port in in_use), "no capability is needed"


def test_only_containers_of_the_network_may_send() -> None:
    (config,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    for name in ("gw1", "gw2", "spool"):
        settings = load_settings(config=config_of(name), environ={"HOME": "/"}).settings
        assert settings.listeners[0].allow == (ip_network(config["subnet"]),)


def test_the_password_is_a_file_that_one_service_makes() -> None:
    path = "/run/secrets/database_password"
    settings = load_settings(config=config_of("gw1"), environ={"HOME": "/"}).settings
    assert settings.queue.password is not None
    assert (settings.queue.password.kind, settings.queue.password.target) == ("file", path)
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == path
    user = inherited(STAGES, "relaygw", "USER")
    assert user is not None and f"chown {user.text} " in SERVICES["secret"]["command"][0]
    for name in ("gw1", "gw2", "db-upgrade", "postgres"):
        assert "secrets:/run/secrets:ro" in SERVICES[name]["volumes"]
    assert "PASSWORD:" not in (DOCKER / "compose.yaml").read_text()


def test_what_is_written_lies_on_a_volume() -> None:
    declared = set(json_words(STAGES, "relaygw", "VOLUME"))
    for name, service in OURS.items():
        on_volumes = {t for t, source in mounts(service).items() if source in COMPOSE["volumes"]}
        assert on_volumes - {"/run/secrets"} <= declared
        assert service.get("read_only") or name == "shop"
    used = {source for service in SERVICES.values() for source in mounts(service).values()}
    assert set(COMPOSE["volumes"]) <= used


def test_gateways_start_after_the_upgrade_and_have_names_of_their_own() -> None:
    names = [SERVICES[name]["hostname"] for name in ("gw1", "gw2")]
    assert len(set(names)) == 2
    for name in ("gw1", "gw2"):
        wait = SERVICES[name]["depends_on"]["db-upgrade"]["condition"]
        assert wait == "service_completed_successfully"
        assert config_of(name) == config_of("db-upgrade")
    assert "pg_isready" in SERVICES["postgres"]["healthcheck"]["test"]


def test_the_command_that_makes_the_password_makes_it_once(tmp_path: Path) -> None:
    script = SERVICES["secret"]["command"][0].replace("$$", "$")
    script = script.replace("/run/secrets", str(tmp_path))
    user = inherited(STAGES, "relaygw", "USER")
    assert user is not None
    if os.geteuid() != 0:
        script = script.replace(f"chown {user.text}", f"chown {os.geteuid()}:{os.getegid()}")
    made = []
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the image has a "python"
    for _ in range(2):
        entrypoint = SERVICES["secret"]["entrypoint"]
        subprocess.run([*entrypoint, script], check=True, env={**os.environ, "PATH": path})
        made.append((tmp_path / "database_password").read_text())
    assert made[0] == made[1] and len(made[0].strip()) >= 32
    status = (tmp_path / "database_password").stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == (10025 if os.geteuid() == 0 else os.geteuid())


# --- played ------------------------------------------------------------------------------------


class Services:
    """The services of compose.yaml as processes, in the order of their dependencies."""

    def __init__(self, directory: Path, database_url: str, stack: ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self._password = directory / "database_password"
        self._password.write_text("secret\n")
        self._password.chmod(0o600)
        self._database_url = database_url
        self._ports = {f"{name}:2525": free_port() for name in ("gw1", "gw2", "provider")}
        migrate.upgrade(database_url)
        self.provider = self._start("provider")
        self.gateways = [self._start("gw1"), self._start("gw2")]
        self.spool = self._start("spool")

    def _start(self, name: str) -> Gateway:
        directory = self._directory / name
        directory.mkdir()
        settings: dict[str, Any] = yaml.safe_load(self._replaced(config_of(name).read_text()))
        port = self._ports.get(f"{name}:2525", 0)
        settings["listeners"][0] |= {"bind": f"127.0.0.1:{port}"}
        settings["hostname"] = SERVICES[name]["hostname"]
        settings["web"]["bind"] = "127.0.0.1:0"
        mode = settings.pop("mode")
        queue = {"url": f"sqlite:///{directory}/state/queue.db", **settings.pop("queue", {})}
        gateway = Gateway(directory, mode=mode, queue={**queue, "min_free": "0%"}, **settings)
        return self._stack.enter_context(gateway)

    def _replaced(self, text: str) -> str:
        text = text.replace("postgresql://relaygw@postgres/relaygw", self._database_url)
        text = text.replace("/run/secrets/database_password", str(self._password))
        text = text.replace("192.168.213.0/24", "127.0.0.0/8")
        text = re.sub(r"host: provider, port: 2525", self._provider_at, text)
        for name in ("gw1", "gw2"):
            text = text.replace(f"//{name}:2525", f"//127.0.0.1:{self._ports[f'{name}:2525']}")
        return text

    def _provider_at(self, _: re.Match[str]) -> str:
        return f"host: 127.0.0.1, port: {self._ports['provider:2525']}"

    def captured(self) -> list[str]:
        """Return the subjects of what arrived, by the page that compose.yaml names."""
        url = f"http://127.0.0.1:{self.provider.web_port}/api/v1/messages"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return [message["Subject"] for message in json.load(answer)["messages"]]


@pytest.fixture
def services(tmp_path: Path, postgres_url: str) -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(tmp_path, postgres_url, stack)


def order(services: Services, command: Installation, count: int) -> None:
    """Run the shop's script."""
    maildrop = Path(services.spool.settings["maildrop"]["path"])
    services.spool.wait_until(maildrop.is_dir, "a maildrop")
    done = subprocess.run(
        [
            *("php", "-d", f"sendmail_path={command.sendmail} -t -i"),
            *(str(DOCKER / "shop.php"), str(count)),
        ],
        env=command.environment(maildrop),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mail_of_the_shop_arrives_and_goes_on_when_a_gateway_dies(
    services: Services, command: Installation
) -> None:
    order(services, command, 5)
    services.provider.wait_until(lambda: len(services.captured()) == 5, "five captured")
    services.gateways[0].kill_all()
    order(services, command, 5)
    services.provider.wait_until(lambda: len(services.captured()) == 10, "ten captured")
    assert sorted(set(services.captured())) == [f"Order {number}" for number in range(1, 6)]
    services.gateways[1].wait_until_empty()

"""docs/coming-from-mailpit.md: its keys are there, its snippets load, its error is the real one."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaygw.errors import StoreUnavailable
from relaygw.roles import sockets
from relaygw.settings.load import load_settings
from relaygw.settings.model import Settings
from tests.tables import each_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/coming-from-mailpit.md").read_text()
SNIPPETS = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
WHOLE = [text for text in SNIPPETS if text.startswith("mode:")]
SERVICES = [text for text in SNIPPETS if text.startswith("services:")]
FILLED_IN = {"DDEV_SITENAME": "shop", "DDEV_HOSTNAME": "shop.ddev.site", "DDEV_APPROOT": "/shop"}
KEYS = set(re.findall(r"^\| `([\w.\[\]]+)` \|", (ROOT / "docs/configuration.md").read_text(), re.M))
NAMES = PAGE[
    PAGE.index("| Mailpit | MailHog | relaygw |") : PAGE.index("Mailpit with its defaults")
]


def load(path: Path, text: str) -> Settings:
    path.write_text(text)
    return load_settings(config=path, environ={"HOME": str(path.parent)}).settings


def test_the_configurations_load(tmp_path: Path) -> None:
    sandbox, staging = (load(tmp_path / "relaygw.yaml", text) for text in WHOLE)
    assert (sandbox.mode, sandbox.sandbox.max_messages) == ("sandbox", 500)
    assert sandbox.sandbox.retention == 3 * 86400
    assert staging.mode == "staging"
    assert len(staging.recipients.allow) == 2


def test_every_key_of_the_table_is_one() -> None:
    keys = {
        key
        for line in NAMES.splitlines()[2:]
        for key in re.findall(r"`([a-z_]+[\w.\[\]]*)`", line.rstrip("| ").rpartition("|")[2])
    }
    values = {"implicit", "reject", "staging", "production"}
    sections = {key.partition("[")[0] for key in KEYS}
    assert len(keys) > 20
    assert keys - values <= KEYS | sections


def service_of(text: str) -> tuple[str, dict[str, Any]]:
    filled = re.sub(r"\$\{(\w+)\}", lambda found: FILLED_IN[found[1]], text)
    ((name, service),) = yaml.safe_load(filled)["services"].items()
    return name, service


@each_of("text", SERVICES)
def test_each_service_is_a_sandbox_that_others_reach(text: str) -> None:
    name, service = service_of(text)
    assert service["image"] == "relaygw"
    environ = dict(one.split("=", 1) for one in service["environment"])
    environ = {name: value for name, value in environ.items() if name.startswith("RELAYGW__")}
    image = ROOT / "docker/relaygw.yaml"
    settings = load_settings(config=image, environ={"HOME": "/", **environ}).settings
    assert settings.mode == "sandbox"
    assert [str(one.bind) for one in settings.listeners] == ["0.0.0.0:1025"]
    assert (str(settings.web.bind), settings.web.open) == ("0.0.0.0:8025", True)
    assert "localhost" in settings.web.hosts
    # by the name that test suites use within the network
    assert {name, "mailhog"} & set(settings.web.hosts)
    if "container_name" in service:
        assert "shop.ddev.site" in settings.web.hosts


def test_ports_of_services_are_those_of_relaygw() -> None:
    for text in SERVICES:
        _, service = service_of(text)
        published = [port.rpartition(":")[2] for port in service.get("ports", [])]
        assert set(published + service.get("expose", [])) <= {"1025", "8025"}
        exposed = [one for one in service["environment"] if "_EXPOSE=" in one]
        assert all(one.endswith(":8025") for one in exposed)
    assert "--smtp-addr relaygw:1025" in PAGE


def test_the_error_of_a_taken_port_is_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_BIND_PATIENCE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = f'mode: sandbox\nlisteners: [{{bind: "127.0.0.1:{port}"}}]\n'
        settings = load(tmp_path / "relaygw.yaml", text)
        with pytest.raises(StoreUnavailable) as refused:
            sockets.ListeningSockets(("front",)).open(settings)
    moved = port + (1000 if port < 60_000 else -1000)
    said = str(refused.value).replace(str(port), "1025").replace(str(moved), "2025")
    assert f"```\nrelaygw: {said}\n```" in PAGE

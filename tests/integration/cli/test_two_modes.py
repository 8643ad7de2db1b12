"""Another configuration beside a gateway that runs, of another mode, on the same queue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, provider_settings
from tests.forked import run_relaygw


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path, providers={"main": provider_settings(1)}, has_web=True) as gateway:
        gateway.wait_for_roles()
        yield gateway


_REST = ("--sender", "shop@shop.test", "--offline", "--no-sendmail", "--yes")


def relaygw(config: Path, *words: str) -> tuple[int, str]:
    done = run_relaygw(["--config", str(config), *words], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_its_queue_is_not_that_of_a_staging(gateway: Gateway, tmp_path: Path) -> None:
    draft = tmp_path / "staging.yaml"
    settings = {**gateway.settings, "mode": "staging", "recipients": {"allow": ["@shop.test"]}}
    draft.write_text(json.dumps(settings))
    code, said = relaygw(draft, "serve")
    assert code == os.EX_CONFIG
    assert (
        f"{gateway.config} (pid {gateway.processes()[0]}) runs in mode production on the same queue"
        in said
    )
    assert "runs in mode production on the same queue" in relaygw(draft, "check")[1]
    # the gateway's own file, which a reload would read
    gateway.config.write_text(draft.read_text())
    assert "on the same queue" not in relaygw(gateway.config, "check")[1]
    gateway.reload()


def test_setup_does_not_make_a_staging_of_it(gateway: Gateway) -> None:
    gateway.config.rename(gateway.config.with_suffix(".old"))
    words = "setup --use staging --host 127.0.0.1 --port 1 --tls none --allow @shop.test"
    for more in ([], ["--dry-run"]):
        code, said = relaygw(gateway.config, *words.split(), *_REST, *more)
        assert code == os.EX_CONFIG
        assert "is in mode production: setup does not make it staging. " in said
        assert f"Stop it first: kill {gateway.processes()[0]}; " in said
        assert not gateway.config.exists()

"""Without pysqlite3, as on arm64: the SQLite of the Python in use, under the same lock."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import fixed_binds
from tests.e2e.test_systemd import Shops
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw


def test_mail_taken_by_several_is_sent_and_outlives_a_kill(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    def arrived() -> set[str]:
        return {one for message in provider.messages for one in message.recipients}

    stand_in = tmp_path / "modules/pysqlite3"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("raise ImportError('there is none for this machine')\n")
    with Gateway(
        tmp_path,
        providers={"main": provider_settings(provider.port)},
        processes={"front": 2, "delivery": 2},
        environment={"PYTHONPATH": str(stand_in.parent)},
        is_new=True,
        **fixed_binds(),
    ) as gateway:
        maps = [Path(f"/proc/{pid}/maps").read_text() for pid in gateway.processes()[:2]]
        assert maps
        assert not [one for one in maps if "pysqlite3" in one]
        with Shops(gateway.smtp_port, count=4, each_s=0.02) as shops:
            shops.wait_for(50)
            gateway.kill_all()
        gateway.start()
        with Shops(gateway.smtp_port, count=4, each_s=0.02, domain="later.test") as others:
            others.wait_for(50)
        assert others.failures == []
        accepted = {*shops.accepted, *others.accepted}
        provider.wait_until(lambda: accepted <= arrived())
        assert gateway.stop() == 0
        check = ["--config", gateway.config, "db", "check"]
        done = run_relaygw(check, capture_output=True, env=gateway.environment)
    assert done.returncode == 0, done.stderr

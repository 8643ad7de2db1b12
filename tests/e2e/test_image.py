"""docker/Dockerfile, step by step in clean directories, and its containers: as root only.

The steps are read from the file, so a Dockerfile that does not build fails here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.store import migrate
from tests.e2e.image.build import BUILD_ARGUMENTS, Image
from tests.e2e.image.container import Running
from tests.e2e.image.dockerfile import Stage, Step, healthcheck, inherited, json_words, read_stages
from tests.once import fast_place
from tests.rights import needs

ROOT = Path(__file__).parents[2]
pytestmark = needs("mounts")
SEND = """
import smtplib
with smtplib.SMTP("127.0.0.1", 2525, timeout=20, local_hostname="client.test") as client:
    client.sendmail("a@shop.test", ["b@cust.test"], b"Subject: x\\r\\n\\r\\nhello\\r\\n")
"""
READ = """
import json, urllib.request
print(json.load(urllib.request.urlopen("http://127.0.0.1:8025/api/v1/messages"))["total"])
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="relaygw-image-", dir=fast_place()) as scratch:
        Path(scratch).chmod(0o755)
        yield Image(ROOT, read_stages(ROOT / "docker/Dockerfile"), Path(scratch))


def check_of(image: Image) -> list[str]:
    words = healthcheck(image.stages, "relaygw")
    assert words is not None
    return words


@pytest.fixture
def sandbox(image: Image) -> Iterator[Running]:
    """Return a container of the image as it is."""
    argv = [
        *json_words(image.stages, "relaygw", "ENTRYPOINT"),
        *json_words(image.stages, "relaygw", "CMD"),
    ]
    with image.root("relaygw").started(
        argv,
        user=image.user("relaygw"),
        cwd=image.cwd("relaygw"),
        env=image.environment("relaygw"),
        volumes=json_words(image.stages, "relaygw", "VOLUME"),  # the rest is read-only
    ) as container:
        yield container


@pytest.mark.timeout(600)  # it installs all packages
def test_the_image_builds_and_has_what_it_needs_and_no_more(image: Image) -> None:
    root = image.root("relaygw")
    listed = root.run(
        ["sh", "-c", "cd /opt/relaygw/lib/python*/site-packages && ls"],
        env=image.environment("relaygw"),
    ).stdout.split()
    assert "relaygw_postfix" in listed and "psycopg_binary" in listed
    assert not {"pip", "pytest", "mypy", "setuptools", "hatchling"} & set(listed)
    assert not (root.path / "src").exists()
    version = root.run(
        ["relaygw", "--version"], user="10025:10025", env=image.environment("relaygw")
    )
    assert version.stdout.split()[:2] == ["relaygw", BUILD_ARGUMENTS["VERSION"]], version.stderr


def test_a_stage_that_failed_to_build_is_built_again(tmp_path: Path) -> None:
    stage = Stage("scratch", "broken", [Step("COPY", ".git /srv/"), Step("USER", "0:0")])
    (tmp_path / "scratch").mkdir()
    broken = Image(ROOT, {"broken": stage}, tmp_path / "scratch")
    with pytest.raises(AssertionError, match="is ignored"):
        broken.root("broken")
    del stage.steps[0]
    assert broken.root("broken").path.is_dir()


def test_a_container_runs_healthy_as_process_1_and_ends_by_term(
    image: Image, sandbox: Running
) -> None:
    sandbox.wait_until_healthy(check_of(image))
    ids = sandbox.execute(["sh", "-c", "grep -h ^Uid: /proc/1/status /proc/[0-9]*/status"]).stdout
    assert set(re.findall(r"Uid:\s+(\d+)", ids)) == {"10025"}
    assert sandbox.execute(["cat", "/proc/1/cmdline"]).stdout.count("serve") == 1
    sent = sandbox.execute(["python", "-c", SEND])
    assert sent.returncode == 0, sent.stderr
    assert sandbox.execute(["python", "-c", READ]).stdout.strip() == "1"
    assert sandbox.stop() == 0, sandbox.log
    assert (image.root("relaygw").path / "var/lib/relaygw/queue.db").exists()


def test_the_image_can_upgrade_a_database(image: Image, postgres_url: str) -> None:
    done = image.root("relaygw").run(
        ["relaygw", "db", "upgrade"],
        user=image.user("relaygw"),
        env=image.environment("relaygw") | {"RELAYGW__QUEUE__URL": postgres_url},
        has_network=True,
    )
    assert done.returncode == 0, done.stderr
    migrate.check_schema(postgres_url)


def test_the_health_check_fails_when_nothing_answers(image: Image) -> None:
    done = image.root("relaygw").run(
        check_of(image), user=image.user("relaygw"), env=image.environment("relaygw")
    )
    assert done.returncode != 0


def test_a_shops_container_leaves_mail_for_its_spool(image: Image) -> None:
    root = image.root("shop")
    step = inherited(image.stages, "shop", "USER")
    assert step is not None and step.text == "33:33"
    done = root.run(
        [*json_words(image.stages, "shop", "ENTRYPOINT"), *json_words(image.stages, "shop", "CMD")],
        user=image.user("shop"),
        cwd=image.cwd("shop"),
        env=image.environment("shop"),
    )
    assert done.returncode == 0, done.stderr
    drops = list((root.path / "var/spool/relaygw/maildrop").glob("*.drop"))
    assert len(drops) == 3
    readable = root.run(
        ["cat", *(f"/var/spool/relaygw/maildrop/{drop.name}" for drop in drops)],
        user="10025:10025",
        env=image.environment("shop"),
    )
    assert readable.stdout.count("Subject: Order ") == 3

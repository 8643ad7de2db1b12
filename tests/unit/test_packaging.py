"""What is put into packages: pinned as for all, chosen for the machine, told in the manual."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from relaygw import __version__
from relaygw.cli import main
from tests.tables import each_of

ROOT = Path(__file__).parents[2]
PAGES = ("install.md", "upgrade.md")
UNITS = ROOT / "packaging/tree/usr/lib/systemd/system"

sys.path.append(str(ROOT / "packaging"))
import build  # noqa: E402
import manual  # noqa: E402


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^ ;\n]+)", path.read_text(), re.M)
    return {name.lower().replace("_", "-"): version for name, version in found}


@each_of("name", ["requirements.txt", "tools.txt"])
def test_packages_hold_the_versions_that_are_tested(name: str) -> None:
    everywhere = pins(ROOT / "constraints.txt")
    packed = pins(ROOT / "packaging" / name)
    assert {one: everywhere.get(one, packed[one]) for one in packed} == packed
    assert name == "tools.txt" or set(packed) <= set(everywhere)


def test_each_requirement_has_its_hashes() -> None:
    text = (ROOT / "packaging/requirements.txt").read_text()
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block


@each_of(("machine", "has_its_own_sqlite"), [("x86_64", True), ("aarch64", False)])
def test_what_is_chosen_for_a_machine(machine: str, has_its_own_sqlite: bool) -> None:
    chosen = build.requirements_for(build.Target("3.13", machine))
    assert ("pysqlite3==" in chosen) == has_its_own_sqlite
    names = set(re.findall(r"^([\w-]+)==", chosen, re.M))
    everything = set(pins(ROOT / "packaging/requirements.txt"))
    assert names | {"pysqlite3"} == everything


def test_the_service_may_do_little() -> None:
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=20"]
    # fails above 2.0; 1.5 when this was written
    subprocess.run([*words, UNITS / "relaygw.service"], check=True, capture_output=True)


@each_of("name", ["relaygw.service", "relaygw.socket"])
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/relaygw", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / name],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_needs_no_program_that_a_small_system_lacks() -> None:
    unit = (UNITS / "relaygw.service").read_text()
    programs = re.findall(r"^Exec\w+=(\S+)", unit, re.M)
    assert programs
    assert {*programs} <= {"/usr/bin/relaygw", "/bin/sh"}


def test_the_socket_is_the_listener_of_a_configuration_without_listeners() -> None:
    assert re.findall("^ListenStream=(.*)$", (UNITS / "relaygw.socket").read_text(), re.M) == [
        "127.0.0.1:25"
    ]


@each_of(
    ("queue", "code", "waits"),
    [
        ("postgresql://relaygw@db/relaygw", os.EX_CONFIG, True),
        ("postgresql://relaygw@db/relaygw", os.EX_OK, False),
        ("postgresql://relaygw@db/relaygw", os.EX_UNAVAILABLE, False),
        ("sqlite:////var/lib/relaygw/queue.db", os.EX_CONFIG, False),
    ],
)
def test_an_upgrade_lets_a_gateway_run_whose_shared_queue_waits_for_its_schema(
    queue: str, code: int, waits: bool, tmp_path: Path
) -> None:
    stub = tmp_path / "relaygw"
    stub.write_text(
        f"""#!/bin/sh\n[ $1 != config ] || exec echo 'queue.url: "{queue}"'\nexit {code}\n"""
    )
    stub.chmod(0o755)
    script = (ROOT / "packaging/scripts/postinst").read_text()
    asks = script[script.index("waits_for_schema() {") : script.index("\n}\n") + 3]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", f"{asks}if waits_for_schema; then exit 9; fi"], env=path)
    assert done.returncode == (9 if waits else 0)


@each_of("page", ["relaygw", "sendmail", "configuration"])
def test_manual_pages_are_clean(page: str) -> None:
    text = getattr(manual, page)()
    groff = ["groff", "-man", "-Tutf8", "-K", "utf8", "-ww", "-z"]
    done = subprocess.run(groff, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_the_manual_has_every_command() -> None:
    text = manual.relaygw().replace("\\-", "-")
    for name in main.commands:
        assert f'.SS "relaygw {name}' in text


@pytest.mark.parametrize("shell", build.COMPLETIONS)
def test_shells_complete_commands(shell: str) -> None:
    (text,) = [text for name, text in build.help_files() if name == build.COMPLETIONS[shell]]
    assert "_RELAYGW_COMPLETE" in text
    asked = {"_RELAYGW_COMPLETE": "bash_complete", "COMP_WORDS": "relaygw que", "COMP_CWORD": "1"}
    program = [sys.executable, "-m", "relaygw"]
    done = subprocess.run(program, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout == "plain,queue\n"


def test_pages_name_this_version() -> None:
    """Packages of this version, and an older one to go back to."""
    package = re.compile(r"relaygw[-_](?:mta[-_])?(\d+\.\d+\.\d+)")
    named = [set(package.findall((ROOT / "docs" / page).read_text())) for page in PAGES]
    assert named == [{__version__}, {"0.1.0"}]


def test_builds_of_two_commits_tell_themselves_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str, at: str = "") -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        environment = {**os.environ, "GIT_COMMITTER_DATE": at}
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, env=environment)

    def version() -> str:
        build.build_version.cache_clear()
        return build.build_version()

    monkeypatch.setattr(build, "ROOT", tmp_path)
    assert version() == __version__, "the sources of a release"
    git("init", "--quiet")
    (tmp_path / "code").write_text("1")
    git("add", "code")
    git("commit", "--quiet", "--message", "first", at="2026-12-01T10:00:00+02:00")
    first = version()
    assert re.fullmatch(rf"{re.escape(__version__)}\+git20261201080000\.g[0-9a-f]{{8}}", first)
    (tmp_path / "code").write_text("2")
    assert version() == f"{first}.changed"
    git("commit", "--quiet", "--all", "--message", "second", at="2026-12-01T09:00:00+00:00")
    second = version()
    for older, newer in ((__version__, first), (first, second)):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)
        assert Version(older) < Version(newer)
    git("tag", f"v{__version__}")
    assert version() == __version__
    build.build_version.cache_clear()

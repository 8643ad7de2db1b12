"""The packages on a machine of their own, with systemd and no network.

The machine is this one under an overlay; `make campaign` takes a Debian by debootstrap as well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from relaygw import __version__
from tests.campaign import IS_CAMPAIGN
from tests.e2e.machine import Machine, ProviderInside
from tests.e2e.test_systemd import Shops
from tests.rights import needs
from tests.sources import ONLY_FROM, POSTFIX, ROOT

WITHOUT_NETWORK = ("apt", "install", "--no-install-recommends")
PACKAGES = ("relaygw", "relaygw-mta")
OLDER = "0.0.9"
UNITS = ("relaygw.socket", "relaygw.service")
INSTALLED = "install ok installed"
SET_UP = [f"/etc/relaygw/{one}" for one in ("relaygw.yaml", "secrets", "secrets/main")]

BASES = ["this machine", *(["a new Debian"] if IS_CAMPAIGN else [])]
RPM_PYTHON = "3.12" if IS_CAMPAIGN else "3.13"
"""Of the RHEL family; here that of the .deb, so that the files are built once."""

pytestmark = [
    pytest.mark.campaign,
    needs("systemd"),
    pytest.mark.timeout(1200),  # to build them is slow where all processors are in use
]


@dataclass(frozen=True)
class Packages:
    """Where they are: those of Debian, an older one, and the others of the same files."""

    main: Path
    mta: Path
    older: Path
    out: Path

    def only(self, pattern: str) -> Path:
        """Return the one of a name."""
        (found,) = self.out.glob(pattern)
        return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    out = tmp_path_factory.mktemp("packages")
    kinds = ["deb", "tarball", "wheel", *(["rpm"] if RPM_PYTHON == "3.13" else [])]
    build(*kinds, "--out", str(out))
    if "rpm" not in kinds:
        build("rpm", "--python", RPM_PYTHON, "--out", str(out))
    main = next(out.glob("relaygw_*.deb"))
    mta = next(out.glob("relaygw-mta_*.deb"))
    return Packages(main, mta, made_older(main, out / "older"), out)


def build(*words: str) -> None:
    command = [sys.executable, "packaging/build.py", "--fast", *words]
    # the strictest umask of who builds: all must be able to read what is installed
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, umask=0o077)
    assert done.returncode == 0, done.stderr


def made_older(package: Path, place: Path) -> Path:
    """Return the same package, which says that it is of an older version."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, place], check=True)
    for name in ("control", "preinst"):
        path = place / "DEBIAN" / name
        path.write_text(path.read_text().replace(version_of(package), OLDER))
    made = place.with_suffix(".deb")
    subprocess.run(["dpkg-deb", "-Znone", "--build", place, made], check=True, capture_output=True)
    return made


def version_of(package: Path) -> str:
    asked = ["dpkg-deb", "--field", package, "Version"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def new_debian(place: Path) -> Path:
    """Make a Debian 13 that has Postfix, from where this machine has its packages."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: trixie"]
    targets = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    include = "--include=systemd,systemd-sysv,python3,postfix,iproute2"
    bootstrap = ["debootstrap", "--variant=minbase", include, "trixie", place]
    subprocess.run([*bootstrap, targets.split()[0]], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module", params=BASES)
def machine(
    request: pytest.FixtureRequest, packages: Packages, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine that had Postfix, until the package that replaces it was installed."""
    is_new = request.param == "a new Debian"
    base = new_debian(tmp_path_factory.mktemp("debian") / "root") if is_new else Path("/")
    with Machine(base, tmp_path_factory.mktemp("machine")) as machine:
        assert status_of(machine, "postfix") == INSTALLED
        machine.before = machine.written()
        names = [machine.put(one, f"/tmp/{one.name}") for one in (packages.main, packages.mta)]
        machine.said = machine.run(*WITHOUT_NETWORK, "--yes", *names).stdout
        yield machine


def status_of(machine: Machine, package: str) -> str:
    return machine.run("dpkg-query", "-W", "-f", "${Status}", package, check=False).stdout


def install(machine: Machine, *files: Path) -> subprocess.CompletedProcess[str]:
    names = [machine.put(file, f"/tmp/{file.name}") for file in files]
    return machine.run("dpkg", "--install", *names, check=False)


def configure(machine: Machine, provider: ProviderInside, *, is_started: bool = True) -> None:
    login = {"username": "shop", "password": "credential:relaygw_main"}
    main = {"host": "127.0.0.1", "port": provider.port, "tls": "none", **login}
    settings = {
        "mode": "production",
        "hostname": "gw.test",
        "providers": {"main": main},
        "routes": [{"name": "default", "providers": ["main"]}],
    }
    files = {
        "relaygw.yaml": (["-m", "640", "-g", "relaygw"], yaml.safe_dump(settings)),
        "credentials/main": (["-m", "600"], "secret\n"),
    }
    for name, (how, text) in files.items():
        machine.run("install", *how, "/dev/stdin", f"/etc/relaygw/{name}", input=text)
    if is_started:
        machine.run("systemctl", "enable", "--now", "relaygw.socket", "relaygw.service")


def test_it_takes_the_place_of_postfix_and_starts_nothing(
    machine: Machine, packages: Packages
) -> None:
    assert status_of(machine, "postfix") != INSTALLED
    assert " ".join(WITHOUT_NETWORK) in (ROOT / "docs/install.md").read_text()
    assert "relaygw is installed and does not run yet. Next: relaygw setup" in machine.said
    assert "waits in the maildrop until the" in machine.said
    for ask, answer in (("is-active", "inactive"), ("is-enabled", "disabled")):
        assert machine.run("systemctl", ask, *UNITS, check=False).stdout.split() == [answer] * 2
    assert machine.run("relaygw", "--version").stdout == f"relaygw {version_of(packages.main)}\n"
    machine.run("relaygw", "import-postfix", "--help")  # fails if it is not in the package


def send(machine: Machine, subject: str) -> None:
    mail = f"From: shop@shop.test\nTo: c@cust.test\nSubject: {subject}\n\nthanks\n"
    machine.run("sendmail", "-t", "-i", user="www-data", input=mail)


def set_up(machine: Machine, *words: str) -> str:
    """Run setup with a key on standard input; return what it says."""
    done = machine.run("relaygw", "setup", *words, input="secret\n")
    assert "secret\n" not in done.stdout + done.stderr
    return done.stdout


def test_setup_of_a_gateway_has_the_socket_listen_where_the_configuration_says(
    machine: Machine,
) -> None:
    with ProviderInside(machine) as provider:
        words = f"--use gateway --host 127.0.0.1 --port {provider.port} --tls none"
        set_up(machine, *words.split(), "--network", "10.0.0.0/8", "--to", "c@cust.test", "--yes")
        listening = machine.run("ss", "-Hltn", "sport = :25").stdout
        assert "0.0.0.0:25" in listening
        assert len(provider.messages) == 2
        begin_anew_in_staging(machine, provider)
    # as it is right after the installation
    machine.run("systemctl", "disable", "--now", *UNITS)
    left = ["/var/lib/relaygw", "/etc/relaygw", "/etc/systemd/system/relaygw.socket.d"]
    machine.run("rm", "-rf", *left)
    machine.run("systemd-tmpfiles", "--create", "relaygw.conf")
    machine.run("systemctl", "daemon-reload")


def begin_anew_in_staging(machine: Machine, provider: ProviderInside) -> None:
    """In place of the service in production, with another file and other listeners."""
    machine.run("rm", "/etc/relaygw/relaygw.yaml")
    more = ["--sender", "shop@shop.test", "--allow", "@shop.test"]
    words = f"--use staging --host 127.0.0.1 --port {provider.port} --tls none"
    asked = ["relaygw", "setup", *words.split(), *more, "--yes"]
    refused = machine.run(*asked, check=False)
    assert refused.returncode == os.EX_CONFIG
    stop = f"systemctl disable --now {' '.join(UNITS)}"
    assert f"Stop it first: {stop}; " in refused.stderr
    assert not machine.path("/etc/relaygw/relaygw.yaml").exists()
    machine.run(*stop.split())
    said = set_up(machine, *words.split(), *more, "--to", "a@shop.test", "--yes")
    assert "remove /etc/systemd/system/relaygw.socket.d/listeners.conf" in said
    listening = machine.run("ss", "-Hltn", "sport = :25").stdout
    assert "127.0.0.1:25" in listening
    assert "0.0.0.0:25" not in listening
    assert "staging" in machine.run("relaygw", "status").stdout
    provider.wait_for_messages(4)

    again = ["relaygw", "setup", "--offline", "--yes"]
    change = ["sed", "-i", "s/@shop.test/@other.test/", "/etc/relaygw/relaygw.yaml"]
    machine.run(*change)
    said = machine.run(*again, "--to", "a@shop.test", check=False).stdout
    assert "runs with other settings\n--- systemctl reload relaygw.service" in said
    assert len(provider.messages) == 4, "it waits for nothing: a@shop.test is not on the list"
    assert "runs with other" not in machine.run(*again).stdout


@pytest.fixture(scope="module")
def provider(machine: Machine) -> Iterator[ProviderInside]:
    """What the shop of the next tests sends by; each of them leaves the gateway running."""
    with ProviderInside(machine, users={"shop": "secret"}) as provider:
        yield provider


def test_setup_leads_to_the_first_mail_and_a_second_run_changes_nothing(
    machine: Machine, provider: ProviderInside
) -> None:
    words = f"--use shop --host 127.0.0.1 --port {provider.port} --tls none --username shop"
    asked = [*words.split(), "--sender", "shop@shop.test", "--to", "c@cust.test", "--yes"]
    machine.run("relaygw", "setup", *asked, "--dry-run", input="secret\n")
    assert not machine.path("/etc/relaygw/relaygw.yaml").exists()
    said = set_up(machine, *asked)
    assert 'sendmail_path = "/usr/sbin/sendmail -t -i"' in said
    assert "accepted from www-data" in said
    assert [one.sender for one in provider.messages] == ["shop@shop.test"] * 2
    assert [one.user for one in provider.messages] == ["shop"] * 2
    shown = machine.run("stat", "-c", "%a %U:%G", *SET_UP).stdout.split("\n")
    assert shown[:3] == ["640 root:relaygw", "700 relaygw:relaygw", "600 relaygw:relaygw"]
    for ask, answer in (("is-active", "active"), ("is-enabled", "enabled")):
        assert machine.run("systemctl", ask, *UNITS).stdout.split() == [answer] * 2
    before = machine.run("stat", "-c", "%n %i %Z", *SET_UP).stdout
    pid = machine.run("systemctl", "show", "-P", "MainPID", "relaygw").stdout
    set_up(machine, *asked, "--key-file", "-")
    assert machine.run("stat", "-c", "%n %i %Z", *SET_UP).stdout == before
    assert machine.run("systemctl", "show", "-P", "MainPID", "relaygw").stdout == pid
    provider.wait_for_messages(4)
    # conf.d and the like are the administrator's
    changed = machine.run("dpkg", "--verify", *PACKAGES, check=False).stdout.splitlines()
    assert [line for line in changed if "/etc/" not in line] == []


def test_a_broken_file_is_said_by_systemctl_and_apt_and_a_kill_is_mended(
    machine: Machine, packages: Packages, provider: ProviderInside
) -> None:
    seen = len(provider.messages)
    config = machine.path("/etc/relaygw/relaygw.yaml")
    good = config.read_text()
    config.write_text(good.replace("mode: production", "mode: prodcution"))
    assert machine.run("systemctl", "reload", "relaygw", check=False).returncode == 1
    journal = machine.run("journalctl", "--unit", "relaygw", "--output", "cat").stdout
    assert "prodcution" in journal
    assert "reload refused" not in journal  # it was not even asked to
    pid = machine.run("systemctl", "show", "-P", "MainPID", "relaygw").stdout
    done = install(machine, packages.main)
    assert (done.returncode, "the configuration has a mistake" in done.stderr) == (0, True), done
    assert machine.run("systemctl", "show", "-P", "MainPID", "relaygw").stdout == pid
    config.write_text(good)
    for close in (("chown", "root:root"), ("mv", "--target-directory=/root")):
        machine.run(*close, "/etc/relaygw/relaygw.yaml")
        assert install(machine, packages.main).returncode == 0
        assert machine.run("systemctl", "show", "-P", "MainPID", "relaygw").stdout == pid
    machine.run("mv", "/root/relaygw.yaml", "/etc/relaygw/relaygw.yaml")
    machine.run("chown", "root:relaygw", "/etc/relaygw/relaygw.yaml")
    machine.run("systemctl", "reload", "relaygw")
    machine.run("systemctl", "kill", "--signal", "KILL", "relaygw")
    send(machine, "after the kill")
    provider.wait_for_messages(seen + 1)
    assert machine.run("systemctl", "is-active", "relaygw").stdout == "active\n"


def test_other_ports_as_the_page_says(machine: Machine, provider: ProviderInside) -> None:
    page = (ROOT / "docs/install.md").read_text().partition("### Ports stay open")[2]
    override = page.partition("```ini\n")[2].partition("```")[0]
    restart = page.partition("```ini")[2].partition("```sh\n")[2].partition("\n```")[0]
    binds = [line.partition("=")[2] for line in override.splitlines() if line[-1].isdigit()]
    config = machine.path("/etc/relaygw/relaygw.yaml")
    before = config.read_text()
    listeners = [{"bind": bind, "allow": ["127.0.0.0/8"]} for bind in binds]
    config.write_text(before + yaml.safe_dump({"listeners": listeners}))
    # as the configuration says, and systemd does not know it yet
    assert machine.run("systemctl", "restart", "relaygw", check=False).returncode == 1
    status = machine.run("systemctl", "show", "-P", "ExecMainStatus", "relaygw").stdout
    assert int(status) == os.EX_CONFIG
    journal = machine.run("journalctl", "--unit", "relaygw", "--output", "cat").stdout
    assert f"relaygw.socket does not pass {binds[1]}; " in journal
    assert " && ".join(restart.splitlines()) in journal

    drop_in = "/etc/systemd/system/relaygw.socket.d"
    machine.run("mkdir", "-p", drop_in)
    machine.run("tee", f"{drop_in}/override.conf", input=override)
    machine.run("systemctl", "daemon-reload")  # `systemctl edit` does it
    for line in restart.splitlines():
        machine.run(*line.split())
    assert machine.run("systemctl", "is-active", "relaygw").stdout == "active\n"
    listening = machine.run("ss", "--listening", "--tcp", "--numeric").stdout
    assert all(bind in listening for bind in binds)

    config.write_text(before)  # for the next start
    machine.run("rm", "-r", drop_in)
    machine.run("systemctl", "daemon-reload")


def test_a_mail_of_the_web_server_to_a_provider(machine: Machine, provider: ProviderInside) -> None:
    seen = len(provider.messages)
    send(machine, "order")
    provider.wait_for_messages(seen + 1)
    assert provider.messages[seen].recipients == ("c@cust.test",)
    for command in (["mailq"], ["postqueue", "-p"]):
        # the provider has it a moment before that is recorded
        while (shown := machine.run(*command, user="www-data").stdout) != "Mail queue is empty\n":
            assert shown.endswith("in 1 Request.\n")
    # whoever asks is shown the same queue, and spoils nothing for the service, which starts alone
    machine.run("systemctl", "stop", "relaygw.service", "relaygw.socket")
    for user in ("root", "relaygw"):
        listed = machine.run("relaygw", "queue", "list", "--state", "all", user=user)
        assert "order" in listed.stdout
    send(machine, "while it is down")
    machine.run("systemctl", "start", "relaygw.service")
    provider.wait_for_messages(seen + 2)


def test_a_purge_leaves_nothing(machine: Machine) -> None:
    machine.run("systemctl", "stop", *UNITS)
    send(machine, "left in the maildrop")
    said = machine.run("dpkg", "--remove", *PACKAGES).stderr
    assert "in the maildrop: 1. They stay" in said
    assert machine.run("systemctl", "is-active", "relaygw", check=False).stdout == "inactive\n"
    assert machine.path("/var/lib/relaygw/queue.db").exists()
    said = machine.run("dpkg", "--purge", *PACKAGES).stderr
    assert re.search(r"deleting messages that wait in the queue: \d+, in the maildrop: 1", said)

    assert machine.written() - machine.before == set()
    for database in ("passwd", "group"):
        assert machine.run("getent", database, "relaygw", check=False).returncode == 2
    assert "relaygw" not in machine.run("systemctl", "list-unit-files").stdout


def running_and_enabled(machine: Machine) -> list[str]:
    asked = (
        machine.run("systemctl", ask, *UNITS, check=False) for ask in ("is-active", "is-enabled")
    )
    return [word for done in asked for word in done.stdout.split()]


# also that of a Postfix that had run on: systemctl start does nothing then
@pytest.mark.parametrize("is_stopped", [False, True] if IS_CAMPAIGN else [False])
def test_over_from_postfix_and_back_as_the_page_says(
    packages: Packages, tmp_path: Path, is_stopped: bool
) -> None:
    page = (ROOT / "docs/coming-from-postfix.md").read_text()

    def follow(heading: str) -> str:
        words = page.partition(heading)[2].partition("```sh\n")[2].partition("```")[0]
        return machine.run("sh", "-ec", f'sudo() {{ "$@"; }}\n{words}').stdout

    def listener() -> str:
        return machine.run("ss", "-Hltnp", "sport = :25").stdout

    with (
        Machine(Path("/"), tmp_path) as machine,
        ProviderInside(machine, users={"shop": "secret"}) as provider,
    ):
        # whatever the Postfix of this machine is told
        machine.put(Path("/etc/postfix/master.cf.proto"), "/etc/postfix/master.cf")
        machine.path("/etc/postfix/main.cf").write_text("compatibility_level = 3.6\n")
        relayhost = f"relayhost=[127.0.0.1]:{provider.port}"
        names = ["myhostname=machine.test", "mydestination=", "inet_interfaces=127.0.0.1"]
        machine.run("postconf", "-e", relayhost, "smtp_tls_security_level=none", *names)
        machine.run("systemctl", "start", "postfix")
        machine.wait_for(lambda: machine.run("postfix", "status", check=False))
        assert (done := install(machine, packages.main)).returncode == 0, done.stderr
        configure(machine, provider, is_started=False)
        send(machine, "by Postfix")
        provider.wait_for_messages(1)
        follow("## Switch over")
        assert running_and_enabled(machine) == ["active", "active", "enabled", "enabled"]
        send(machine, "by relaygw")
        provider.wait_for_messages(4)  # setup has sent two
        assert "master" not in listener()
        if is_stopped:
            machine.run("systemctl", "disable", "--now", "postfix")
            machine.run("systemctl", "stop", "relaygw")
            machine.run("systemctl", "enable", "--now", "relaygw.socket", "relaygw.service")
        follow("## Switch back")
        machine.wait_for(
            lambda: machine.run("grep", "-q", ":0019 0*:0000 0A", "/proc/net/tcp", check=False)
        )
        assert "master" in listener()
        enabled = machine.run("systemctl", "is-enabled", *UNITS, "postfix", check=False).stdout
        assert enabled.split() == ["disabled", "disabled", "enabled"]
        send(machine, "by Postfix again")
        provider.wait_for_messages(5)
        first, *_, fourth, last = (one.content for one in provider.messages)
        assert [b"(Postfix, from" in one for one in (first, fourth, last)] == [True, False, True]


def test_an_upgrade_under_load_and_no_way_back(machine: Machine, packages: Packages) -> None:
    machine.run("dpkg", "--purge", *reversed(PACKAGES), check=False)
    install(machine, packages.older)
    with ProviderInside(machine, users={"shop": "secret"}) as provider:
        configure(machine, provider)
        with Shops(25, count=4, each_s=0.1, place=machine.join_network) as shops:
            shops.wait_for(20)
            assert (done := install(machine, packages.main)).returncode == 0, done.stderr
            shops.wait_for(20)
            version = version_of(packages.main)
            assert machine.run("relaygw", "--version").stdout == f"relaygw {version}\n"
            pid = machine.run("systemctl", "show", "-P", "MainPID", "relaygw").stdout
            refused = install(machine, packages.older)
            shops.wait_for(20)
        assert shops.failures == []
        provider.wait_for_messages(len(shops.accepted))
        arrived = [one for message in provider.messages for one in message.recipients]
        assert sorted(arrived) == sorted(shops.accepted)
    assert refused.returncode == 1
    assert f"{version} is installed and {OLDER} is older" in refused.stderr
    assert machine.run("systemctl", "show", "-P", "MainPID", "relaygw").stdout == pid
    assert machine.run("dpkg-query", "-W", "relaygw").stdout.endswith(f"\t{version}\n")


def test_the_other_packages_have_the_same_files(packages: Packages, tmp_path: Path) -> None:
    def listed(*words: object) -> set[str]:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
        return {line.removeprefix(".").strip("/") for line in done.stdout.splitlines()}

    def files(*words: object) -> set[str]:
        """Without directories, which one kind names and another does not; of documents no need."""
        names = listed(*words)
        names -= {str(parent) for name in names for parent in Path(name).parents}
        return {name for name in names if not name.startswith("usr/share/doc")}

    tar = tmp_path / "deb.tar"
    with tar.open("wb") as file:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", packages.main], stdout=file, check=True)
    of_deb = files("tar", "--list", "--file", tar)
    pages = "usr/share/doc/relaygw/"
    documents = {name for name in listed("tar", "--list", "--file", tar) if name.startswith(pages)}
    shown = re.findall(r"\]\((pictures/[^)]+)\)", (ROOT / "docs/inbox.md").read_text())
    assert {f"{pages}{name}" for name in shown} < documents
    assert of_deb == files("tar", "--list", "--file", packages.only("relaygw-*.tar.gz"))
    rpm = packages.only("relaygw-[0-9]*.rpm")
    subprocess.run(["rpmkeys", "--checksig", "--nosignature", rpm], check=True)
    of_rpm = files("rpm", "--query", "--list", "--package", rpm)
    assert RPM_PYTHON != "3.13" or of_rpm == of_deb
    needs = listed("rpm", "--query", "--requires", "--package", rpm)
    assert f"usr/bin/python{RPM_PYTHON}" in needs
    root = ["--root", tmp_path / "rpm", "--dbpath", "/rpm"]
    (tmp_path / "rpm").mkdir()
    subprocess.run(["rpm", "--install", "--test", "--nodeps", *root, rpm], check=True)
    owners = listed("rpm", "--query", "--queryformat", "[%{FILEUSERNAME}\n]", "--package", rpm)
    assert owners == {"root"}
    wheel = listed("python3", "-m", "zipfile", "--list", packages.only("relaygw-*.whl"))
    assert not [line for line in wheel if line.startswith(("bench/", "relaygw_postfix"))]
    assert [line for line in wheel if line.startswith("relaygw/migrations/versions/")]
    beside = set(zipfile.ZipFile(packages.only("relaygw_postfix-*.whl")).namelist())
    site = "usr/lib/relaygw/lib/python3.13/site-packages"
    assert {f"{site}/{name}" for name in beside} <= of_deb
    written = {path for path in POSTFIX.rglob("*") if path.suffix in (".py", ".yaml")}
    assert {str(path.relative_to(ROOT)) for path in written} <= beside


def test_the_gateway_of_a_wheel_is_without_postfix_until_its_wheel_is_there(
    packages: Packages, tmp_path: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-c", ONLY_FROM, tmp_path, *words]
        return subprocess.run(command, capture_output=True, text=True)

    zipfile.ZipFile(packages.only("relaygw-*.whl")).extractall(tmp_path)
    version = run("--version").stdout
    assert version == f"relaygw {version_of(packages.main)}\n"
    assert run("import-postfix", "--help").returncode == os.EX_UNAVAILABLE
    zipfile.ZipFile(packages.only("relaygw_postfix-*.whl")).extractall(tmp_path)
    (tmp_path / "main.cf").write_text("relayhost = [127.0.0.1]:2525\n")
    done = run("import-postfix", str(tmp_path), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "127.0.0.1" in done.stdout


def check_a_package_for_arm64(tmp_path: Path) -> None:
    build("deb", "--machine", "aarch64", "--out", str(tmp_path))
    (package,) = tmp_path.glob("relaygw_*_arm64.deb")
    subprocess.run(["dpkg-deb", "--raw-extract", package, tmp_path / "files"], check=True)
    libraries = list((tmp_path / "files").rglob("*.so"))
    assert libraries
    for library in libraries:
        assert library.read_bytes()[18:20] == b"\xb7\x00", library  # EM_AARCH64
    assert not list((tmp_path / "files").rglob("pysqlite3"))


def test_the_tarball_as_the_page_says(machine: Machine, packages: Packages) -> None:
    """The last one: what it leaves is known to nobody."""
    machine.run("dpkg", "--purge", *reversed(PACKAGES), check=False)
    page = (ROOT / "docs/install.md").read_text().partition("## Other systems")[2]
    commands = page.partition("```sh\n")[2].partition("```")[0].splitlines()
    tarball = packages.only("relaygw-*.tar.gz")
    released = tarball.name.replace(version_of(packages.main), __version__)
    machine.put(tarball, f"/root/{released}")
    for command in commands:
        machine.run("sh", "-ec", f"cd /root\n{command}")
    machine.run("systemctl", "start", "relaygw")
    assert machine.run("relaygw", "sandbox", "list", user="relaygw").stdout == (
        "the sandbox is empty\n"
    )


if IS_CAMPAIGN:  # it fetches the wheels of another machine
    test_a_package_for_arm64 = check_a_package_for_arm64

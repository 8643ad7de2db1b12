"""The commands of pages that people copy are run as they stand there, on other ports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway import PATIENCE_S, Gateway
from tests.e2e.ports import free_port
from tests.forked_program import put_program

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/coming-from-mailpit.md", "docs/troubleshooting.md")
BLOCKS = [
    (page, text)
    for page in PAGES
    for text in re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
]


def block(part: str) -> str:
    """Return the one block of commands that has `part`."""
    (text,) = (text for _, text in BLOCKS if part in text)
    return text


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("sandbox"), mode="sandbox") as running:
        put_program(running.directory)
        running.wait_for_roles()
        yield running


def environment(home: Path, *programs: Path) -> dict[str, str]:
    """Return what commands run with: this relaygw or that of `programs`, and their own home."""
    places = ":".join(map(str, (*programs, Path(sys.executable).parent, os.environ["PATH"])))
    return {**os.environ, "PATH": places, "HOME": str(home), "XDG_STATE_HOME": str(home / "xdg")}


def run(sandbox: Gateway, text: str, *, options: str = "-euc") -> str:
    """Run commands against a sandbox; return what they print."""
    for number, port in ((1025, sandbox.smtp_ports[0]), (8025, sandbox.web_port)):
        text = re.sub(rf":{number}\b", f":{port}", text)
    done = subprocess.run(
        ["sh", options, text],
        env={
            **environment(sandbox.directory, sandbox.directory),
            "RELAYGW_CONFIG": str(sandbox.config),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # where the tests lie may be closed to other users: install-sendmail says so
    assert [one for one in done.stderr.splitlines() if "users other than" not in one] == []
    return done.stdout


def test_every_block_is_run_here() -> None:
    parts = ("make run", "It works.", "ss -H", "relaygw serve", "install-sendmail", "482913")
    known = {block(part) for part in (*parts, "relaygw status", "apt install")}
    assert {text for _, text in BLOCKS} == known
    assert "\nrun: $(STAMP)" in (ROOT / "Makefile").read_text()


def test_the_package_is_the_one_that_was_built() -> None:
    """It is installed and set up by the tests of packages and of setup."""
    installing, *others = block("apt install").splitlines()
    assert installing.startswith("apt install ./relaygw_*_amd64.deb")  # not relaygw-mta_
    assert installing.split("#")[0].strip() in (ROOT / "docs/install.md").read_text()
    assert [line.split()[1] for line in others] == ["setup", "send-test"]


def test_the_first_mail_of_the_readme(sandbox: Gateway) -> None:
    message = json.loads(run(sandbox, block("It works.")))
    assert (message["Subject"], message["Text"].strip()) == ("hello", "It works.")


def test_the_three_commands_that_answer_most_questions(sandbox: Gateway) -> None:
    run(sandbox, block("relaygw status"))


def test_who_has_the_ports(sandbox: Gateway) -> None:
    found = run(sandbox, block("ss -H"))
    for port in (sandbox.smtp_ports[0], sandbox.web_port):
        assert f":{port} " in found


def test_the_sendmail_command_of_a_sandbox(sandbox: Gateway) -> None:
    position = len(sandbox.lines)
    said = run(sandbox, block("install-sendmail"), options="-uc")
    assert f'sendmail_path = "{sandbox.directory}/.local/sbin/sendmail -t -i"' in said
    sandbox.wait_for_log("status=captured", start=position)
    assert "by sendmail" in run(sandbox, "relaygw sandbox list")


def test_the_calls_of_the_api(sandbox: Gateway) -> None:
    printed = run(sandbox, block("482913"))
    found, end = json.JSONDecoder().raw_decode(printed)
    printed = printed[end:].lstrip()
    waited, end = json.JSONDecoder().raw_decode(printed)
    printed = printed[end:]
    assert [one["Subject"] for one in found["messages"]] == ["Your code"]
    assert waited["codes"] == ["482913"]
    assert "Subject: Your code" in printed
    assert printed.endswith("ok")
    assert json.loads(run(sandbox, "curl -s http://127.0.0.1:8025/api/v1/messages"))["total"] == 0


def test_a_gateway_beside_mailpit(tmp_path: Path) -> None:
    smtp, web = free_port(), free_port()
    text = block("relaygw serve").replace("2025", str(smtp)).replace("9025", str(web))
    with subprocess.Popen(
        ["sh", "-c", f"exec env {text}"],
        env={**environment(tmp_path), "RELAYGW_RUN_DIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "started: mode sandbox" in line:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert f"SMTP on 127.0.0.1:{smtp}\n" in "".join(lines)
    assert f"web on http://127.0.0.1:{web}\n" in "".join(lines)

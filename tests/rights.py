"""What tests need of a machine beyond programs: rights that even root lacks in some containers.

A test says what it needs, `@needs("mounts")`. What this machine cannot do is found out before the
first test and told in one line each, with the tests that are left out for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from bench.cutting.volume import can_be_cut
from relaygw.store.home import this_machine
from tests.e2e.machine import cgroup2
from tests.e2e.namespace import linked_namespace

OLDER = "fa48f80"
"""A commit from before holds had a code."""

_OWN_MOUNTS = "mount -t tmpfs tmpfs /proc/fs && mkdir /proc/fs/upper /proc/fs/work && "
_OWN_MOUNTS += "mount -t overlay overlay -o "
_OWN_MOUNTS += "lowerdir=/usr,upperdir=/proc/fs/upper,workdir=/proc/fs/work /mnt"


def needs(right: str) -> pytest.MarkDecorator:
    """Return the mark of a test that needs one of `RIGHTS`."""
    assert right in RIGHTS
    return pytest.mark.needs(right)


def _lacks_root() -> str:
    return "" if os.geteuid() == 0 else "the tests run as another user"


def _lacks_mounts() -> str:
    if reason := _lacks_root():
        return reason
    own = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", _OWN_MOUNTS]
    done = subprocess.run(own, check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else _last_line(done.stderr)


def _lacks_disks() -> str:
    if reason := _lacks_mounts():
        return reason
    return "" if can_be_cut() else "/dev/fuse or /dev/loop-control cannot be written"


def _lacks_links() -> str:
    if reason := _lacks_root():
        return reason
    try:
        with linked_namespace():
            return ""
    except subprocess.CalledProcessError as error:
        return _last_line(error.stderr)


def _lacks_systemd() -> str:
    if reason := _lacks_mounts() or _lacks_links():
        return reason
    try:
        group = cgroup2() / f"relaygw-rights-{os.getpid()}"
        group.mkdir()
        group.rmdir()
    except (OSError, subprocess.CalledProcessError) as error:
        return str(error)
    return ""


def _lacks_history() -> str:
    if shutil.which("git") is None:
        return "git is not installed"
    asked = ["git", "-C", str(Path(__file__).parent), "cat-file", "-e", OLDER]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else _last_line(done.stderr)


def _lacks_id() -> str:
    machine = this_machine()
    if machine.is_container:
        return "this is a container"
    return "" if machine.mark else "/etc/machine-id has none"


RIGHTS: dict[str, tuple[str, Callable[[], str]]] = {
    "root": ("be root", _lacks_root),
    "mounts": ("mount in a namespace of its own", _lacks_mounts),
    "disks": ("mount a disk that tests break", _lacks_disks),
    "links": ("make network namespaces and links", _lacks_links),
    "systemd": ("start another systemd", _lacks_systemd),
    "history": ("read this repository's history", _lacks_history),
    "id": ("tell itself from its copy", _lacks_id),
}
"""What a machine may be unable to do, and what finds out why; empty: it can."""


@cache
def _reason(right: str) -> str:
    return RIGHTS[right][1]()


def leave_out(items: Sequence[pytest.Item]) -> None:
    """Mark the tests that this machine cannot run as skipped."""
    for item in items:
        if right := _lacking(item):
            said = f"this machine cannot {RIGHTS[right][0]}: {_reason(right)}"
            item.add_marker(pytest.mark.skip(reason=said))


def describe(items: Sequence[pytest.Item]) -> Iterator[str]:
    """Yield what this machine cannot do, with the number of tests left out of each file."""
    left_out: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        if right := _lacking(item):
            left_out[right][item.nodeid.partition("::")[0]] += 1
    for right, files in left_out.items():
        what = f"this machine cannot {RIGHTS[right][0]} ({_reason(right)})"
        yield f"{what}, so {files.total()} tests are left out:"
        yield from (f"  {count:4} of {file}" for file, count in files.items())


def _lacking(item: pytest.Item) -> str:
    """Return a right that a test needs and this machine lacks; empty without one."""
    rights = (mark.args[0] for mark in item.iter_markers("needs"))
    return next((right for right in rights if _reason(right)), "")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]

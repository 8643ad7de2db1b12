"""Plays the steps of a stage in a directory: COPY copies, RUN runs, USER and WORKDIR hold.

What needs an archive of packages (apt-get) is not run; the packages must be on this machine.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.e2e.image.container import BASE_ENVIRONMENT, Root, remove_root
from tests.e2e.image.dockerfile import Stage, environment, inherited

_APT = re.compile(r"apt-get install (?:-\S+ )*([a-z0-9 .+-]+?) &&")
_CACHE = Path(sys.prefix) / "cache" / "pip"
BUILD_ARGUMENTS = {"VERSION": "9.9.9+git20261202.gabcdef0"}
"""What the arguments of a build are given."""
_FROM_WHEELS = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/tmp/wheels"}


class Image:
    """The stages of a Dockerfile, each built once when it is first asked for."""

    def __init__(self, context: Path, stages: dict[str, Stage], scratch: Path) -> None:
        self._context = context
        self._ignored = ignore_rules(context / "docker/Dockerfile.dockerignore")
        self.stages = stages
        self._scratch = scratch
        self._built: dict[str, Root] = {}

    def root(self, name: str) -> Root:
        """Return the file system at the end of a stage."""
        if name not in self._built:
            self._built[name] = self._build(self.stages[name])
        return self._built[name]

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a stage's containers."""
        return environment(self.stages, name, BASE_ENVIRONMENT)

    def user(self, name: str) -> str:
        """Return UID:GID of a stage's containers."""
        step = inherited(self.stages, name, "USER")
        return "0:0" if step is None else step.text

    def cwd(self, name: str) -> str:
        """Return the directory that a stage's containers start in."""
        step = inherited(self.stages, name, "WORKDIR")
        return "/" if step is None else step.text

    def _build(self, stage: Stage) -> Root:
        path = self._scratch / stage.name
        remove_root(path)  # what is left of a build that failed
        root = self.root(stage.base).copy(path) if stage.base in self.stages else Root(path)
        user, cwd = self.user(stage.base), self.cwd(stage.base)
        arguments: list[str] = []
        for step in stage.steps:
            match step.name:
                case "WORKDIR":
                    cwd = step.text
                    (root.path / cwd.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    user = step.text
                case "COPY":
                    self._copy(root, cwd, shlex.split(step.text))
                case "ARG":
                    arguments.append(step.text)
                case "RUN":
                    self._run(root, stage, user, cwd, step.text, arguments)
        return root

    def _run(
        self, root: Root, stage: Stage, user: str, cwd: str, text: str, arguments: Iterable[str]
    ) -> None:
        apt = _APT.search(text)
        if apt is not None:
            for package in apt[1].split():
                subprocess.run(["dpkg-query", "-W", package], check=True, capture_output=True)
            return
        given = {name: BUILD_ARGUMENTS[name] for name in arguments}
        if "-m pip" in text:
            shutil.copytree(wheels(self._context), root.path / "tmp/wheels", dirs_exist_ok=True)
            given |= _FROM_WHEELS
        done = root.run(
            ["/bin/sh", "-c", text],
            user=user,
            cwd=cwd,
            env=self.environment(stage.name) | given,
            has_network=True,
        )
        assert done.returncode == 0, (text, done.stdout[-2000:], done.stderr[-2000:])

    def _copy(self, root: Root, cwd: str, words: list[str]) -> None:
        origin = self._context
        is_from_context = True
        if words[0].startswith("--from="):
            origin = self.root(words.pop(0).removeprefix("--from=")).path
            is_from_context = False
        *sources, target = words
        destination = root.path / (Path(cwd) / target).as_posix().lstrip("/")
        for source in sources:
            found = origin / source.lstrip("/")
            end = destination / found.name if target.endswith("/") else destination
            end.parent.mkdir(parents=True, exist_ok=True)
            assert not is_from_context or not self.is_ignored(source), f"{source} is ignored"
            if found.is_dir() and is_from_context:
                ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(found, end, symlinks=True, ignore=ignore, dirs_exist_ok=True)
            elif found.is_dir():  # nothing is done any more in the stage it is from
                shutil.copytree(found, end, symlinks=True, copy_function=os.link)
            else:
                shutil.copy(found, end)

    def is_ignored(self, name: str) -> bool:
        """True when the engine would not see a file of the source tree."""
        ignored = False
        for pattern, is_exception in self._ignored:
            if fnmatch.fnmatch(name, pattern):
                ignored = not is_exception
        return ignored


def wheels(context: Path) -> Path:
    """Return a directory with all that pip may install in an image; asks an index for it once."""
    needs = [(context / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    folder = _CACHE / f"wheels-{hashlib.sha256(b''.join(needs)).hexdigest()[:16]}"
    if not folder.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        tree = tomllib.loads(needs[0].decode())
        named = [*tree["build-system"]["requires"], *tree["project"]["dependencies"]]
        for extra in ("postgres", "pdf"):
            named += tree["project"]["optional-dependencies"][extra]
        with tempfile.TemporaryDirectory(dir=_CACHE) as fresh:
            found = Path(fresh) / "wheels"
            pip = [sys._base_executable, "-m", "pip", "download", "--quiet", "--dest", found]
            constraints = ["--constraint", context / "constraints.txt"]
            subprocess.run([*pip, *constraints, *named], check=True, timeout=300)
            with contextlib.suppress(OSError):  # another test process was as quick
                found.rename(folder)
    return folder


def ignore_rules(path: Path) -> list[tuple[str, bool]]:
    """Return the patterns of a .dockerignore, and whether each is an exception."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [
        (line.removeprefix("!"), line.startswith("!"))
        for line in lines
        if line and not line.startswith("#")
    ]

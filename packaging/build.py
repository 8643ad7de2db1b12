"""Builds what is handed out: `python packaging/build.py deb rpm tarball wheel` (see `make help`).

A package holds an environment of its own in /usr/lib/relaygw: the wheels of requirements.txt, each
checked by its hash, and those of relaygw. It runs on the distribution's Python of one version, and
no package index is asked when it is installed. What comes from an index is kept in build/.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from click.shell_completion import get_completion_class

import manual
from relaygw import __version__
from relaygw.cli import main as main_command
from relaygw.cli.install_sendmail import LINKS, launcher_text

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "packaging"
WORK = ROOT / "build/packaging"
LIB = "usr/lib/relaygw"
PROJECTS = {"relaygw": ".", "relaygw_postfix": "relaygw_postfix"}
"""Packages of Python, each with its place in the source tree and a wheel of its own."""
SOURCES = (*PROJECTS, "migrations", "pyproject.toml", "README.md", "LICENSE")
LATEST_GLIBC = 28  # of RHEL 8; Debian 13 has 41
_PIECE_BYTES = 2**20
COMPLETIONS = {
    "bash": "bash-completion/completions/relaygw",
    "zsh": "zsh/vendor-completions/_relaygw",
    "fish": "fish/vendor_completions.d/relaygw.fish",
}
DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Target:
    """Whom a package is for."""

    python: str
    machine: str

    @property
    def site(self) -> str:
        """Where its environment has its modules."""
        return f"{LIB}/lib/python{self.python}/site-packages"

    @property
    def tags(self) -> list[str]:
        """The words by which pip chooses wheels for it."""
        abis = ("none", "abi3", f"cp{self.python.replace('.', '')}")
        platforms = [f"manylinux_2_{n}_{self.machine}" for n in range(5, LATEST_GLIBC + 1)]
        platforms.append(f"manylinux2014_{self.machine}")
        return [
            *("--only-binary", ":all:", "--implementation", "cp"),
            *("--python-version", self.python),
            *(word for abi in abis for word in ("--abi", abi)),
            *(word for one in platforms for word in ("--platform", one)),
        ]


def run(*words: str | Path, **how: object) -> None:
    """Run a command; its failure is ours."""
    subprocess.run([str(word) for word in words], check=True, **how)  # type: ignore[call-overload]


def installed(requirements: str, *words: str) -> Path:
    """Return a directory with what a file of requirements names, put there by pip once."""
    key = hashlib.sha256(f"{requirements}{words}".encode()).hexdigest()[:16]
    place = WORK / f"index-{key}"
    if not place.exists():
        fresh = WORK / f"{place.name}.{os.getpid()}"
        fresh.mkdir(parents=True)
        listed = fresh / "requirements.txt"
        listed.write_text(requirements)
        # an environment has no pip where Debian's python3 made it
        pip = [
            getattr(sys, "_base_executable", sys.executable),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--no-deps",
        ]
        run(*pip, "--require-hashes", "--target", fresh / "site", *words, "--requirement", listed)
        fresh.rename(place)
    return place / "site"


def requirements_for(target: Target) -> str:
    """Return the requirements of a machine: pip would take the markers to be about this one."""
    kept = []
    for block in re.split(r"\n(?=\S)", (HERE / "requirements.txt").read_text()):
        line, _, hashes = block.partition("\n")
        requirement, _, marker = line.removesuffix("\\").partition(";")
        if not marker or f"platform_machine == '{target.machine}'" in marker:
            kept.append(f"{requirement.strip()} \\\n{hashes}")
    return "\n".join(kept)


def build_wheels(out: Path) -> list[Path]:
    """Build the wheels of relaygw itself, which know the version of the build."""
    tools = installed((HERE / "tools.txt").read_text())
    with tempfile.TemporaryDirectory() as directory:  # in build/ git's ignore list leaves all out
        source = Path(directory)
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        package = source / "relaygw/__init__.py"
        package.write_text(package.read_text().replace(f'"{__version__}"', f'"{build_version()}"'))
        for place in PROJECTS.values():
            run(
                *(sys.executable, "-m", "hatchling", "build"),
                *("--target", "wheel", "--directory", out),
                cwd=source / place,
                env={**os.environ, "PYTHONPATH": str(tools), "SOURCE_DATE_EPOCH": source_date()},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    return [out / f"{name}-{build_version()}-py3-none-any.whl" for name in PROJECTS]


@cache
def build_version() -> str:
    """Return the release; of other commits than a release's, with the time and the commit as well.

    dpkg, rpm and pip take each for newer than the release and than the commits before it.
    """
    if said_by_git("tag", "--points-at", "HEAD", "--list", f"v{__version__}"):
        return __version__
    commit = said_by_git("describe", "--always", "--abbrev=8", "--dirty=.changed", "--exclude=*")
    if not commit:
        return __version__  # the sources of a release, without a repository
    at = said_by_git("log", "-1", "--date=format-local:%Y%m%d%H%M%S", "--format=%cd")
    return f"{__version__}+git{at}.g{commit}"


def said_by_git(*words: str) -> str:
    """Return what git says of the source tree; "" where it is no repository."""
    asked = ["git", "-C", str(ROOT), *words]
    environment = {**os.environ, "TZ": "UTC"}
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment)
    return done.stdout.strip()


def source_date() -> str:
    """Return the time of the last change."""
    return (
        os.environ.get("SOURCE_DATE_EPOCH")
        or said_by_git("log", "-1", "--format=%ct")
        or "1700000000"
    )


def build_tree(target: Target, wheels: list[Path], *, compiler: str) -> Path:
    """Lay out the files of a package; `compiler` is a Python of its version, or none."""
    tree = WORK / f"tree-{target.python}-{target.machine}-{'compiled' if compiler else 'source'}"
    shutil.rmtree(tree, ignore_errors=True)
    site = tree / target.site
    site.parent.mkdir(parents=True)
    # links: to make thousands of files takes longer than all the rest
    shutil.copytree(compiled(target, compiler), site, symlinks=True, copy_function=os.link)
    shutil.rmtree(site / "bin", ignore_errors=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as files:
            files.extractall(site)
    environment = tree / LIB
    (environment / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {target.python}\n"
    )
    (environment / "bin").mkdir()
    (environment / "bin/python3").symlink_to(f"/usr/bin/python{target.python}")
    shutil.copytree(HERE / "tree", tree, dirs_exist_ok=True)
    write_programs(tree, target)
    write_words(tree)
    if compiler:
        for name in PROJECTS:
            compile_modules(compiler, site / name, f"/{target.site}/{name}")
    set_times_and_modes(tree)
    return tree


def set_times_and_modes(tree: Path) -> None:
    """Give all files the time of the source, and let all read them.

    The same source makes the same package, whoever cloned and built it, and with which umask.
    """
    seconds = int(source_date())
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            is_program = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if is_program else 0o644)
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def compiled(target: Target, compiler: str) -> Path:
    """Return the modules of others, which are compiled once."""
    site = installed(requirements_for(target), *target.tags)
    mark = site.with_name(f"compiled-by-{Path(compiler).name}") if compiler else site
    if not mark.exists():
        compile_modules(compiler, site, f"/{target.site}")
        mark.touch()
    return site


def compile_modules(compiler: str, place: Path, shown: str) -> None:
    """Compile a directory for ever: nobody looks at times or at sources again."""
    how: list[str | Path] = [
        "-q",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        place,
        "-p",
        shown,
    ]
    run(compiler, "-I", "-m", "compileall", *how, place)


def write_programs(tree: Path, target: Target) -> None:
    """Write relaygw, and the sendmail command as `relaygw install-sendmail` does."""
    programs = {
        f"{LIB}/bin/relaygw": f"#!/{LIB}/bin/python3 -I\nfrom relaygw.cli import main\n\nmain()\n",
        "usr/bin/relaygw-sendmail": launcher_text(
            interpreter=f"/usr/bin/python{target.python}",
            package_parent=f"/{target.site}",
            gateway="/usr/bin/relaygw",
        ),
    }
    (tree / "usr/bin").mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)
    (tree / "usr/bin/relaygw").symlink_to(f"../../{LIB}/bin/relaygw")


def write_words(tree: Path) -> None:
    """Add what people read, and what the other tools of a machine need."""
    doc = tree / "usr/share/doc/relaygw"
    doc.mkdir(parents=True)
    for path in (ROOT / "LICENSE", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        shutil.copy(path, doc)
    (doc / "LICENSE").rename(doc / "copyright")
    shutil.copytree(ROOT / "docs/pictures", doc / "pictures")
    shutil.copytree(ROOT / "config", doc / "examples")
    for name, text in help_files():
        place = tree / "usr/share" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(
            gzip.compress(text.encode(), mtime=0) if name.endswith("gz") else text.encode()
        )


def help_files() -> Iterator[tuple[str, str]]:
    """Yield the manual pages and the completion of shells."""
    yield "man/man1/relaygw.1.gz", manual.relaygw()
    yield "man/man1/relaygw-sendmail.1.gz", manual.sendmail()
    yield "man/man5/relaygw.yaml.5.gz", manual.configuration()
    for shell, kind in COMPLETIONS.items():
        complete = get_completion_class(shell)
        assert complete is not None
        yield kind, complete(main_command, {}, "relaygw", "_RELAYGW_COMPLETE").source()


def mta_tree() -> Path:
    """Lay out the files of relaygw-mta."""
    tree = WORK / "tree-mta"
    shutil.rmtree(tree, ignore_errors=True)
    for name in (*LINKS, "sbin/postqueue", "sbin/postsuper"):
        place = tree / "usr" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("/usr/bin/relaygw-sendmail")
    doc = tree / "usr/share/doc/relaygw-mta"
    doc.mkdir(parents=True)
    shutil.copy(ROOT / "LICENSE", doc / "copyright")
    set_times_and_modes(tree)
    return tree


def pack(
    config: str, packager: str, tree: Path, target: Target, out: Path, *, is_fast: bool
) -> None:
    """Make a package of a tree; a fast one is hardly compressed."""
    scripts = WORK / "scripts"
    shutil.copytree(HERE / "scripts", scripts, dirs_exist_ok=True)
    for script in scripts.iterdir():
        script.write_text(script.read_text().replace("@VERSION@", build_version()))
    settings = (HERE / config).read_text()
    if is_fast:
        settings = settings.replace('"zstd"', '"none"' if packager == "deb" else '"zstd:1"')
    (WORK / config).write_text(settings)
    tools = installed((HERE / "tools.txt").read_text())
    major, minor = target.python.split(".")
    environment = {
        **os.environ,
        "ARCH": DEB_ARCH[target.machine],
        "VERSION": build_version(),
        "TREE": str(tree),
        "PYTHON": target.python,
        "NEXT_PYTHON": f"{major}.{int(minor) + 1}",
        "SOURCE_DATE_EPOCH": source_date(),
    }
    words = ["package", "--config", WORK / config, "--packager", packager, "--target", out]
    run(tools / "bin/nfpm", *words, env=environment, cwd=ROOT)


def build_tarball(tree: Path, target: Target, out: Path, *, is_fast: bool) -> None:
    """Pack a tree, to be laid over a machine's files."""
    name = out / f"relaygw-{build_version()}-python{target.python}-{target.machine}.tar.gz"
    with_logrotate: list[str | Path] = [
        "-C",
        ROOT / "config",
        "--transform=s,^logrotate,etc/logrotate.d,",
    ]
    owner = ["--owner=root:0", "--group=root:0", "--sort=name", f"--mtime=@{source_date()}"]
    words = ["tar", *owner, "-cf", "-", "-C", tree, "usr", *with_logrotate, "logrotate/relaygw"]
    with (
        name.open("wb") as file,
        gzip.GzipFile("", "wb", 0 if is_fast else 6, file, mtime=0) as packed,
        subprocess.Popen(words, stdout=subprocess.PIPE) as tar,
    ):
        assert tar.stdout is not None
        shutil.copyfileobj(tar.stdout, packed, _PIECE_BYTES)
    if tar.returncode:
        raise subprocess.CalledProcessError(tar.returncode, words)


def build(kinds: list[str], target: Target, out: Path, *, is_fast: bool) -> None:
    """Build kinds of packages for one kind of machine."""
    out.mkdir(parents=True, exist_ok=True)
    wheels = build_wheels(WORK / "wheel")
    if "wheel" in kinds:
        for wheel in wheels:
            shutil.copy(wheel, out)
    if kinds == ["wheel"]:
        return
    # without a Python of that version here the modules are compiled when they are installed
    compiler = f"/usr/bin/python{target.python}"
    has_compiler = Path(compiler).exists()
    if "deb" in kinds and not has_compiler:
        raise SystemExit(f"{compiler} is not there: a .deb is built on the Debian it is for")
    tree = build_tree(target, wheels, compiler=compiler if has_compiler else "")
    if "tarball" in kinds:
        build_tarball(tree, target, out, is_fast=is_fast)
    for packager in ("deb", "rpm"):
        if packager in kinds:
            pack("nfpm.yaml", packager, tree, target, out, is_fast=is_fast)
            pack("nfpm-mta.yaml", packager, mta_tree(), target, out, is_fast=is_fast)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ["deb", "rpm", "tarball", "wheel", "version"]
    parser.add_argument("kinds", nargs="+", choices=choices, help="version: only print it")
    parser.add_argument("--python", help="version of the distribution's Python")
    parser.add_argument("--machine", default=platform.machine(), choices=DEB_ARCH)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--fast", action="store_true", help="hardly compress: for tests")
    given = parser.parse_args()
    if "version" in given.kinds:
        sys.stdout.write(f"{build_version()}\n")
        return
    WORK.mkdir(parents=True, exist_ok=True)
    one_at_a_time = (WORK / "lock").open("w")
    fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
    python = given.python or ("3.12" if given.kinds == ["rpm"] else "3.13")
    build(given.kinds, Target(python, given.machine), given.out, is_fast=given.fast)


if __name__ == "__main__":
    main()

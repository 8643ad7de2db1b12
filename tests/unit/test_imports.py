"""The import rule: imports point down, siblings never import each other, libraries have rooms.

A failure names the rule that the import breaks; docs/architecture.md says why it is there.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from tests.sources import GATEWAY, ROOT, module_of, source_files
from tests.tables import each_of

LEVELS = {
    "errors": 0,
    "service_file": 0,
    "background_tasks": 0,
    "reach": 0,
    "clients": 0,
    "http_request": 1,
    "late_packages": 1,
    "state_owner": 1,
    "mail": 1,
    "volume": 2,
    "settings": 2,
    "passwords": 3,
    "policy": 3,
    "observe": 3,
    "store": 4,
    "upstream": 4,
    "alerting": 5,
    "webhooks": 5,
    "inbound": 5,
    "delivery": 5,
    "feedback": 5,
    "operations": 5,
    "sendmail": 6,
    "web": 6,
    "roles": 7,
    "supervisor": 8,
    "cli": 9,
    "__main__": 10,
}
"""What a room may import stands on a lower level; rooms of one level do not know each other."""

BESIDE = {"relaygw_postfix": 4, "relaygw_postfix.cli": 10}
"""Packages beside the gateway, and their commands: it runs without them, so none imports them."""

LIBRARY_ROOMS = {
    "argon2": {"passwords", "cli"},
    "aiosmtpd": {"inbound"},
    "aiosmtplib": {"upstream"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "pysqlite3": {"store"},
    "sqlite3": {"store"},
    "psycopg": {"store"},
    "pydantic": {"settings"},
    "pydantic_core": {"settings", "webhooks"},
    "yaml": {"settings"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "jinja2": {"web", "alerting"},
    "nh3": {"web"},
    "click": {"cli", "relaygw_postfix.cli"},
    "uvloop": {"roles"},
    "prometheus_client": {"observe"},
    "httpx2": {"http_request"},
    "h11": {"http_request"},
    "cryptography": {"feedback", "upstream"},
    "standardwebhooks": {"feedback", "webhooks"},
    "flufl": {"feedback"},
    "apprise": {"alerting"},
}

LIBRARY_PLACES = {"pydantic": "web/api/"}
"""Beside its room: bodies and answers of the gateway's API are its models."""

SEAMS = (
    "store.store.",
    "store.rules.",
    "store.intake.",
    "store.leases.",
    "store.instances.",
    "store.limits.",
    "store.holds.",
    "store.queue.",
    "store.audit.",
    "store.sandbox.",
    "store.find.",
    "store.reports.",
    "store.watch.",
    "store.sources.",
    "store.home.",
    "store.visitors.",
    "store.sessions.",
    "store.login_endings.",
    "store.standing_mail.",
    "store.repeats.",
    "store.guard.",
    "store.guarded_mail.",
    "store.feedback.",
    "store.mail_of_event.",
    "store.outbox.",
    "store.suppression_list.",
    "store.queue_entry.",
    "store.queue_tables.Key",
    "store.selection.",
    "store.shape.",
    "store.outcomes.Recorded",
    "store.release.Release",
    "store.recovery.Recovered",
    "store.backup.Contents",
    "store.backup.Restored",
    "store.batch_writer.",
)
"""What other rooms see of the store: repositories and the data they speak of, no SQL."""

FILES = [path for path in source_files() if "migrations" not in path.parts]


def room_of(module: str) -> str:
    """Return the room of a module: of a package beside the gateway all but the commands is one."""
    package, *inner = module.split(".")
    if package == "relaygw":
        return inner[0] if inner else ""
    return f"{package}.cli" if inner[:1] == ["cli"] else package


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    return tuple(_imports(path))


def _imports(path: Path, but: Container[ast.AST] = ()) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if node in but:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def broken_rules(path: Path) -> Iterator[str]:
    room = room_of(module_of(path))
    levels = LEVELS | BESIDE
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top in ("relaygw", *BESIDE) and rest and room:
            target = room_of(name)
            if target in ("__version__", room):
                continue
            if target in BESIDE and room in LEVELS:
                yield f"{room} may not import {target}: the gateway runs without it"
            if levels[target] >= levels[room]:
                yield f"{room} may not import {target}: imports point down"
            if target == "store" and room != "roles" and not rest.startswith(SEAMS):
                yield f"{room} may see only {', '.join(SEAMS)} of the store, not {name}"
        elif top in LIBRARY_ROOMS and room not in LIBRARY_ROOMS[top]:
            if LIBRARY_PLACES.get(top, "-") in path.as_posix():
                continue
            yield f"{top} lives in {sorted(LIBRARY_ROOMS[top])} only, not in {room}"


@each_of("path", FILES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    assert list(broken_rules(path)) == []


def run_time_imports(path: Path) -> Iterator[str]:
    """Yield what a module imports when it is loaded or runs, and not for its types alone."""
    blocks = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.If))
    typing = [block for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING"]
    return _imports(path, but={node for block in typing for node in ast.walk(block)})


def test_nothing_is_imported_in_a_circle() -> None:
    modules = {module_of(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = list(run_time_imports(path))
        graph[module] = {
            found
            for name in names
            for found in (name, name.rpartition(".")[0])
            if found in modules and (found == name or name not in modules)
        }
    TopologicalSorter(graph).prepare()


WEB = GATEWAY / "web"
RENDERERS = ("relaygw.web.page.render", "relaygw.web.page.render_text")


def is_page(path: Path) -> bool:
    """True for a module of web that renders templates."""
    return path.is_relative_to(WEB) and any(name in RENDERERS for name in imports_of(path))


def is_api(path: Path) -> bool:
    return path.is_relative_to(WEB) and "api" in path.relative_to(WEB).parts and not is_page(path)


def modules_of(path: Path) -> set[Path]:
    """The modules of web that a module imports."""
    names = [name for name in imports_of(path) if name.startswith("relaygw.web.")]
    return {ROOT.joinpath(*name.split(".")[:-1]).with_suffix(".py") for name in names}


@each_of("path", sorted(WEB.rglob("*.py")), ids=lambda path: str(path.relative_to(WEB)))
def test_pages_and_apis_do_not_know_each_other(path: Path) -> None:
    """What both need is in their subject; only who names the addresses knows both."""
    names_addresses = path.name == "app.py"
    known = () if names_addresses else [each for each in modules_of(path) if each.exists()]
    if is_api(path):
        assert [each for each in known if is_page(each)] == []
    elif not is_page(path) or "api" not in path.parts:
        assert [each for each in known if is_api(each)] == []


def test_every_room_has_a_level() -> None:
    assert {room_of(module_of(path)) for path in FILES} - {""} == set(LEVELS | BESIDE)


def test_the_rule_bites(tmp_path: Path) -> None:
    assert imports_of_text("from relaygw.store.sqlite import X", tmp_path) == (
        "relaygw.store.sqlite.X",
    )


def imports_of_text(text: str, directory: Path) -> tuple[str, ...]:
    path = directory / "module.py"
    path.write_text(text)
    return imports_of(path)


@each_of("path", FILES, ids=module_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{path.name} has no docstring"

"""Every key of the model stands in the reference page and in the annotated file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic.fields import FieldInfo

from relaygw.settings.load import load_settings
from relaygw.settings.model import Settings
from relaygw.settings.problems import _bare
from relaygw.settings.secrets import SecretRef
from relaygw.settings.section import Section
from tests.tables import each_of

ROOT = Path(__file__).parents[3]
ANNOTATED = ROOT / "config/relaygw.yaml"
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))
PAGE = (ROOT / "docs/configuration.md").read_text()
ROWS = dict(re.findall(r"^\| `([a-zA-Z_.\[\]]+)` \| (?:`(.*?)`|required) \| .+ \|$", PAGE, re.M))


def keys_of(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key with its field: `listeners[].bind`, `providers.NAME.port`."""
    for name, info in section.model_fields.items():
        kind = _bare(info.annotation)
        inner = {dict: ".NAME", tuple: "[]"}.get(get_origin(kind), "")
        item = _bare(get_args(kind)[1 if inner == ".NAME" else 0]) if inner else kind
        # a field with its own written form is a value to the user, whatever it is inside
        if isinstance(item, type) and issubclass(item, Section) and not info.metadata:
            yield from keys_of(item, f"{prefix}{name}{inner}.")
        else:
            yield f"{prefix}{name}", info


KEYS = dict(keys_of(Settings))
INSIDE_OPTIONAL = (
    *("providers.NAME.oauth.", "providers.NAME.replies[].", "providers.NAME.events."),
    *("users[].", "web.users[].", "web.tokens[].", "alerts[].", "webhooks[].", "expect[]."),
)
"""Sections that are left out as a rule: the page has their keys, the annotated file only them."""
COMMON = [key for key in KEYS if not key.startswith(INSIDE_OPTIONAL)]
BARE = Settings.model_validate(
    {
        "mode": "sandbox",
        "listeners": [{"bind": "127.0.0.1:25"}],
        "providers": {"main": {"host": "smtp.example.com"}},
        "routes": [{"name": "default", "providers": ["main"]}],
    }
)


def value_at(tree: Any, key: str) -> Any:
    """Follow a documented key; `[]` is the first entry, NAME the provider `main`."""
    for part in key.replace("NAME", "main").split("."):
        name, is_list = part.removesuffix("[]"), part.endswith("[]")
        tree = tree[name][0] if is_list else tree[name]
    return tree


def test_the_model_has_the_keys_that_this_test_expects() -> None:
    assert {"mode", "listeners[].bind", "providers.NAME.timeouts.connect"} <= set(KEYS)


def test_the_page_has_every_key_and_no_other() -> None:
    assert list(ROWS) == list(KEYS)


@each_of("key", KEYS)
def test_the_page_tells_the_default(key: str) -> None:
    if KEYS[key].is_required():
        assert ROWS[key] == ""
    elif key not in COMMON:
        assert (yaml.safe_load(ROWS[key]) or None) == (KEYS[key].default or None)
    elif KEYS[key].default_factory is None and key != "queue.url":
        assert yaml.safe_load(ROWS[key]) == value_at(BARE.model_dump(mode="json"), key)


@cache
def annotated() -> tuple[str, Any, Any]:
    """Return the text of the annotated file, its values, and what is in force with it."""
    text = ANNOTATED.read_text()
    loaded = load_settings(config=ANNOTATED, environ={}).settings
    return text, yaml.safe_load(text), loaded.model_dump(mode="json")


@each_of("key", COMMON)
def test_the_annotated_file_has_the_key_with_its_default_and_a_comment(key: str) -> None:
    text, tree, in_force = annotated()
    written = value_at(tree, key)
    is_own = KEYS[key].is_required() or key.endswith((".username", ".password"))
    if not is_own and written is not None and KEYS[key].default_factory is None:
        assert value_at(in_force, key) == value_at(BARE.model_dump(mode="json"), key)
    name = re.split(r"\.", key)[-1]
    assert re.search(rf"^ *# .+\n *(?:- )?{name}: ", text, re.M)


@pytest.mark.parametrize("file", CONFIGS, ids=[file.name for file in CONFIGS])
def test_each_shipped_file_loads_and_its_secrets_can_be_read(file: Path) -> None:
    settings = load_settings(config=file, environ={}).settings
    environ = {"SMTP_USERNAME": "shop", "SMTP_PASSWORD": "secret"}
    for provider in settings.providers.values():
        assert provider.username is not None
        assert provider.password is not None
        assert SecretRef.parse(provider.username).read(environ) == "shop"
        assert provider.password.read(environ) == "secret"


def test_what_the_sandbox_file_has_in_comments_loads_too(tmp_path: Path) -> None:
    text = (ROOT / "config/sandbox.yaml").read_text()
    head, _, rest = text.partition("#\n# listeners:")
    file = tmp_path / "relaygw.yaml"
    file.write_text(head + "\nlisteners:" + rest.replace("\n# ", "\n"))
    settings = load_settings(config=file, environ={}).settings
    assert settings.web.open
    assert str(settings.listeners[0].bind) == "0.0.0.0:1025"

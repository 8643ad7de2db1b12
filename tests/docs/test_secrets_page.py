"""The recipes of docs/secrets.md load, and read a key with programs that check their arguments."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaygw.settings.provider import Provider
from relaygw.settings.secrets import SecretRef
from tests.tables import each_of

PAGE = (Path(__file__).parents[2] / "docs/secrets.md").read_text()
RECIPES = [
    (name, keys)
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    for name, keys in yaml.safe_load(block)["providers"].items()
]
COMMANDS = [keys["password"] for _, keys in RECIPES if "command:" in keys.get("password", "")]
_SECRETS_MANAGER = "secretsmanager get-secret-value --query SecretString --output text --secret-id"
ANSWERS = {
    "vault": {"kv get -field=password secret/relaygw/orders": "key"},
    "aws": {
        f"{_SECRETS_MANAGER} relaygw/orders": "key",
        f"{_SECRETS_MANAGER} relaygw/promo": '{"password":"key"}',
        "ssm get-parameter --name /relaygw/orders --with-decryption "
        "--query Parameter.Value --output text": "key",
    },
}
"""What each client prints for which arguments, in any order."""
_CLIENT = """#!{python}
import sys
for arguments, answer in {answers!r}.items():
    if sorted(arguments.split()) == sorted(sys.argv[1:]):
        sys.exit(print(answer))
sys.exit(2)
"""
_JQ = """#!{python}
import json, sys
assert sys.argv[1:] == ["-r", ".password"]
print(json.load(sys.stdin)["password"])
"""


@each_of(("name", "keys"), RECIPES)
def test_each_recipe_is_a_provider(name: str, keys: dict[str, Any]) -> None:
    provider = Provider.model_validate(keys)
    assert provider.has_credentials
    assert provider.uses_xoauth2 == ("oauth" in keys), name


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_reads_the_key(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {
        name: _CLIENT.format(python=sys.executable, answers=ANSWERS[name]) for name in ANSWERS
    }
    for name, program in {**programs, "jq": _JQ.format(python=sys.executable)}.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert SecretRef.parse(command).read() == "key"


def test_every_form_has_its_recipe() -> None:
    kinds = {keys["password"].partition(":")[0] for _, keys in RECIPES if "password" in keys}
    assert kinds == {"file", "credential", "env", "command"}
    assert len(COMMANDS) == 4

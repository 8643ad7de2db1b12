"""docs/providers.md says what the presets say, and its snippets are configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relaygw.settings.load import load_settings
from relaygw.settings.presets import presets
from tests.tables import each_of

PAGE = (Path(__file__).parents[2] / "docs/providers.md").read_text()
ROWS = {
    cells[0].strip("` "): cells
    for line in re.findall(r"^\| `\w+` \|(?:[^|\n]*\|){5}$", PAGE, re.M)
    if (cells := [cell.strip() for cell in line.strip("|").split("|")])
}
SNIPPETS = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S) if "providers:" in text]
COMPLETE = re.findall(r"```yaml\n(mode:.*?)```", PAGE, re.S)


def test_the_table_has_every_preset() -> None:
    assert list(ROWS) == list(presets())


@each_of("name", presets())
def test_the_table_has_the_ports(name: str) -> None:
    starttls, implicit = ([int(port) for port in cell.split()] for cell in ROWS[name][4:])
    assert starttls == list(presets()[name].starttls_ports)
    assert implicit == list(presets()[name].implicit_ports)


@each_of("name", presets())
def test_the_table_has_the_limits(name: str) -> None:
    keys = presets()[name].keys_for(None, None)
    words = ROWS[name][3].replace(",", "")
    for key in ("max_connections", "max_messages_per_connection", "max_recipients", "daily_quota"):
        if keys.get(key, 100) != 100:
            assert str(keys[key]) in words
    for key in ("rate", "max_message_size"):
        assert str(keys.get(key, "")).replace("MB", " MB") in words


def test_every_region_and_variant_is_named() -> None:
    for name, preset in presets().items():
        rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line]
        for choice in (*preset.regions, *preset.variants):
            assert f"`{choice}`" in "\n".join(rows), f"{name}: {choice}"


def test_the_notes_are_those_of_the_presets() -> None:
    notes = [
        f"| `{name}` | {' '.join(note.text.split())} | {note.checked} |"
        for name, preset in presets().items()
        for note in preset.notes
    ]
    table = PAGE.partition("| preset | note | looked up |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == notes


@pytest.mark.parametrize("text", SNIPPETS)
def test_snippets_of_providers_load(tmp_path: Path, text: str) -> None:
    text = re.sub(r"^routes:\n(?: .*\n)*", "", text, flags=re.M)
    if not text.strip():
        return
    names = re.findall(r"^  ([a-z-]+):", text, re.M)
    file = tmp_path / "relaygw.yaml"
    file.write_text(
        f"mode: production\n{text}routes: [{{name: default, providers: [{', '.join(names)}]}}]\n"
    )
    assert list(load_settings(config=file, environ={}).settings.providers) == names


@pytest.mark.parametrize("text", COMPLETE)
def test_whole_configurations_load(tmp_path: Path, text: str) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(text)
    providers = load_settings(config=file, environ={}).settings.providers
    assert list(providers) == ["gw1-example-com-25", "gw2-example-com"]

"""bench/structure: what it counts, and what it says where a program is missing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import message_counts, structure_figures
from bench.reach_of_tests import private_uses, replaced_constants
from bench.rig import needs
from bench.structure_figures import count_statements


def test_statements_are_counted_without_docstrings_and_imports(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "maps.py").write_text("import os\nfrom os import path\nX = 1\n")
    (tmp_path / "mail.py").write_text(
        '"""A docstring."""\nimport os\n\n\ndef size(mail):\n    """Another."""\n'
        "    import sys\n    if mail:\n        return 1; x = 2\n    print(mail)\n    ...\n"
    )
    # assignment; def, if, return, assignment, call
    assert count_statements(tmp_path) == 1 + 5


def test_reach_is_counted_by_use_of_private_names_and_by_replaced_constant() -> None:
    product = ast.parse(
        "WAIT_S = 1\n_LADDER = ()\ndef _look(): pass\n"
        "class Desk:\n    def __init__(self): self._mail = self.seen = self._own = 0\n"
    )
    test = ast.parse(
        "desk._mail = desk._mail + desk.seen\nmodule._look()\nmodule._LADDER\nother._unknown\n"
        "class Own:\n    def __init__(self): self._own = 0\n"  # may be its own
        "patch.setattr(desk, 'WAIT_S', 2)\nsetattr(desk, 'seen', 2)\nmodule.WAIT_S = 2\n"
        "patch.setattr('relaygw.desk._LADDER', (1,))\nOTHER_S = module.WAIT_S\n"
        "patch.setattr(os, 'WAIT_NO', 2)\n"
    )
    assert sorted(private_uses([product], [test])) == ["_LADDER", "_look", "_mail", "_mail"]
    assert sorted(replaced_constants([product], [test])) == ["WAIT_S", "WAIT_S", "_LADDER"]


@pytest.mark.parametrize(
    ("main", "words"),
    [(structure_figures.main, ["structure", "--modules"]), (message_counts.main, ["counts"])],
)
def test_a_missing_smtp_sink_is_named(
    main: Callable[[], int],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(needs, "find_programs", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 2
    assert "smtp-sink is missing; install Debian's package postfix" in capsys.readouterr().err

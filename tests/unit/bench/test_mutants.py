"""Changes of code are what they say, and still Python."""

from __future__ import annotations

import ast

from bench.mutating.points import find_mutants

SOURCE = """\
LIMIT = 3

def näher(a: int = 1) -> bool:
    if not (a) < (LIMIT):
        note(a)
        return True
    while a and "ü" in b: break
    if b:
        return None
    return a + 1 if a is None else False
"""


def test_each_change_stands_where_it_says_and_is_python() -> None:
    mutants = find_mutants("module.py", SOURCE.encode())
    as_it_is = ast.dump(ast.parse(SOURCE))
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.apply(SOURCE.encode()))) != as_it_is
    found = {(one.line, one.function, one.old, one.new) for one in mutants}
    assert found >= {
        (1, "", "3", "4"),
        (3, "3", "1", "2"),
        (4, "3", "<", "<="),
        (4, "3", "not (a) < (LIMIT)", "((a) < (LIMIT))"),
        (4, "3", "not (a) < (LIMIT)", "not (not (a) < (LIMIT))"),
        (5, "3", "note(a)", "pass"),
        (6, "3", "return True", "return None"),
        (7, "3", "and", "or"),
        (7, "3", "in", "not in"),
        (7, "3", "break", "continue"),
        (10, "3", "+", "-"),
        (10, "3", "is", "is not"),
        (10, "3", "False", "True"),
    }

"""Where a module can be changed, and how. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_COUNTED: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Div: "*",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of a file: what stands from `start` to `end` (in bytes) becomes `new`."""

    path: str
    line: int
    function: str  # FIRST_LINE of the innermost one; empty: none
    start: int
    end: int
    old: str
    new: str

    def apply(self, source: bytes) -> bytes:
        """Return the changed source; what follows stands in the lines where it stood."""
        new = self.new + "\n" * (self.old.count("\n") - self.new.count("\n"))
        return source[: self.start] + new.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.old.split())!s:.60} -> {self.new:.60}"


def find_mutants(path: str, source: bytes) -> list[Mutant]:
    """Return all changes of a module, in order."""
    return list(_Finder(path, source).walk(ast.parse(source), ""))


class _Finder:
    def __init__(self, path: str, source: bytes) -> None:
        self._path = path
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def walk(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            function = str(first)
            parts: list[ast.AST] = [*node.args.defaults, *node.body]  # no annotations
        elif isinstance(node, ast.AnnAssign):
            parts = [node.value] if node.value is not None else []
        else:
            parts = list(ast.iter_child_nodes(node))
        for new, start, end in self._changes(node):
            old = self._source[start:end].decode()
            yield Mutant(self._path, getattr(node, "lineno", 0), function, start, end, old, new)
        for part in parts:
            yield from self.walk(part, function)

    def _changes(self, node: ast.AST) -> Iterator[tuple[str, int, int]]:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                yield self._between(left, right, _COMPARED[type(op)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _COUNTED:
                yield self._between(left, right, _COUNTED[type(op)])
            case ast.BoolOp(op=op, values=[left, right, *_]):
                yield self._between(left, right, "or" if isinstance(op, ast.And) else "and")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield f"({self._text(operand)})", self._at(node), self._end(node)
            case ast.Constant(value=bool(value)):
                yield str(not value), self._at(node), self._end(node)
            case ast.Constant(value=int(value)):
                yield str(value + 1), self._at(node), self._end(node)
            case _:
                yield from self._changed_steps(node)

    def _changed_steps(self, node: ast.AST) -> Iterator[tuple[str, int, int]]:
        match node:
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                yield f"not ({self._text(test)})", self._at(test), self._end(test)
            case ast.Expr(value=ast.Call() | ast.Await()):
                yield "pass", self._at(node), self._end(node)
            case ast.Return(value=None | ast.Constant(value=None)):
                pass  # returns nothing as it is
            case ast.Return():
                yield "return None", self._at(node), self._end(node)
            case ast.Break():
                yield "continue", self._at(node), self._end(node)
            case ast.Continue():
                yield "break", self._at(node), self._end(node)

    def _between(self, left: ast.expr, right: ast.expr, new: str) -> tuple[str, int, int]:
        """Replace the operator between two operands, whatever brackets stand around it."""
        start, end = self._end(left), self._at(right)
        between = self._source[start:end].decode()
        shown = between.strip(" ()\\\n\t")
        at = between.index(shown)
        length = len(between[:at].encode())
        return new, start + length, start + length + len(shown.encode())

    def _at(self, node: ast.stmt | ast.expr) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.stmt | ast.expr) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        return self._source[self._at(node) : self._end(node)].decode()

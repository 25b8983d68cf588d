"""When are two programs the same but for their names?

`fingerprint` is equal for programs that differ only in comments, layout, docstrings and the names they
choose, so counting fingerprints counts solutions that were really found apart from one another.

What it does not see: programs that compute the same in another order count as different. Renaming is one
map for the whole program, so a copy that also shadows a name in an inner scope may count as different.
"""

import ast
import hashlib
import warnings
from functools import lru_cache


def program_of(steps: list[str]) -> str:
    """The steps as one Python program."""
    return "\n".join(steps)


def fingerprint(program: str) -> str:
    """A hash (64 hex digits) of the program's structure; of its plain text if it is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(program)
        structure = "ast:" + ast.dump(rename_bound(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # ValueError: a NUL byte, or an integer too long to be written out.
        structure = "text:" + program
    return hashlib.sha256(structure.encode("utf-8", "surrogatepass")).hexdigest()


def rename_bound(tree: ast.AST) -> ast.AST:
    """The tree with its own names numbered, without docstrings and other idle constants. Changes what it is given."""
    renamed: ast.AST = _Renamer(_bound_names(tree)).visit(tree)
    return renamed


@lru_cache(maxsize=1024)
def step_fingerprint(step: str) -> str:
    """A hash (64 hex digits) of one step's code with its names, without comments and layout."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = "ast:" + ast.dump(ast.parse(step))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        structure = "text:" + step.strip()
    return hashlib.sha256(structure.encode("utf-8", "surrogatepass")).hexdigest()


def _bound_names(tree: ast.AST) -> frozenset[str]:
    """Names that the program itself gives a meaning. All others (builtins) keep theirs."""
    bound: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound.add(name)
            case ast.ClassDef(name=name):
                bound.add(name)
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.alias(name=module, asname=asname) if module != "*":
                bound.add(asname or module.partition(".")[0])
    return frozenset(bound)


class _Renamer(ast.NodeTransformer):
    """Numbers the bound names in order of appearance, and drops docstrings and other idle constants."""

    def __init__(self, bound: frozenset[str]) -> None:
        self._bound = bound
        self._numbers: dict[str, str] = {}

    def _new(self, name: str) -> str:
        if name not in self._bound:
            return name
        return self._numbers.setdefault(name, f"v{len(self._numbers)}")

    def _new_or_none(self, name: str | None) -> str | None:
        return None if name is None else self._new(name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._new(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._new(node.arg)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._new(node.name)
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.name = self._new(node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._new(node.name)
        return self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = self._new_or_none(node.name)
        return self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> ast.AST:
        node.name = self._new_or_none(node.name)
        return self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> ast.AST:
        node.name = self._new_or_none(node.name)
        return node

    def visit_MatchMapping(self, node: ast.MatchMapping) -> ast.AST:
        node.rest = self._new_or_none(node.rest)
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self._new(name) for name in node.names]
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        node.names = [self._new(name) for name in node.names]
        return node

    def visit_alias(self, node: ast.alias) -> ast.AST:
        # `import math` and `import math as m` are the same import under two names.
        if node.name != "*" and (node.asname or "." not in node.name):
            node.asname = self._new(node.asname or node.name)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in self._bound:
            for keyword in node.keywords:
                keyword.arg = self._new_or_none(keyword.arg)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        # A bare constant does nothing: it is a docstring, or a comment in quotes.
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

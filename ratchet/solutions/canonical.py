"""Which programs are one program, where nothing can be changed to see how they behave?

`canonical_form` is equal for programs that compute the same in the same way but for names, layout, the order of the operands of
`+` and `*`, arithmetic on constants, intermediate variables, and what is computed and never used: `print(42)`,
`x = 42; print(x)` and `print(40 + 2)` are one program, and so are `a * b` and `b * a`.

Limits: intermediate variables are followed in programs without control flow. `+` counts as commutative although it is not for
strings; two programs that gave the same answer do not differ in that.
"""

import ast
import hashlib
import math
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain

from ratchet.solutions.programs import program_of, rename_bound

MAX_NODES = 5_000
"""A program that grows beyond that, with its variables' values in their places, keeps its variables."""
_MAX_DIGITS = 300
"""Numbers that would have more are not computed."""
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_ROUNDING: dict[str, Callable[[float], float]] = {"int": int, "float": float, "round": round}


def canonical_form(program: str, *, compute: bool = True) -> str:
    """A hash (64 hex digits) of the program's canonical form; of its plain text if it is not valid Python.

    Without `compute` arithmetic on constants stays as it is written: 6 * 7 and 42 are two.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(program)
        flat = _without_variables(tree) or _without_idle_assignments(tree)
        structure = "ast:" + ast.dump(_Orderer(compute=compute).visit(rename_bound(flat)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        structure = "text:" + program
    return hashlib.sha256(structure.encode("utf-8", "surrogatepass")).hexdigest()


def count_forms(programs: Iterable[Sequence[str]], *, compute: bool) -> int:
    """How many canonical forms these programs (each a list of steps) have."""
    return len({canonical_form(program_of(list(steps)), compute=compute) for steps in programs})


def _without_variables(tree: ast.Module) -> ast.Module | None:
    """The program with each variable's value in its place; None where it has control flow, or grows too long."""
    values: dict[str, ast.expr] = {}
    sizes: Counter[str] = Counter()
    imports: list[ast.stmt] = []
    left: list[ast.stmt] = []
    nodes = 0
    for statement in tree.body:
        # Counted before it is done: a few lines that use one another can grow beyond all memory.
        size = sum(1 for _ in ast.walk(statement)) + sum(sizes[name] for name in _loaded(statement))
        nodes += size
        if nodes > MAX_NODES:
            return None
        match statement:
            case ast.Import() | ast.ImportFrom():
                imports.append(statement)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = _with_values(value, values)
                sizes[name] = size
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value) if name in values:
                values[name] = ast.BinOp(values[name], op, _with_values(value, values))
                sizes[name] = size
            case ast.Expr(value=value):
                left.append(ast.Expr(_with_values(value, values)))
            case _:
                return None
    used = {name for statement in left for name in _loaded(statement)}
    return ast.Module([*(each for each in imports if used & _imported(each)), *left], type_ignores=[])


def _with_values(expression: ast.expr, values: Mapping[str, ast.expr]) -> ast.expr:
    class Substitute(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            known = values.get(node.id) if isinstance(node.ctx, ast.Load) else None
            return node if known is None else deepcopy(known)

    found = Substitute().visit(deepcopy(expression))
    assert isinstance(found, ast.expr)
    return found


def _without_idle_assignments(tree: ast.Module) -> ast.Module:
    """The program without assignments to names that nothing reads, or only what itself is not read."""
    reads = [Counter(_loaded(statement)) for statement in tree.body]
    read = Counter(chain.from_iterable(each.elements() for each in reads))
    binds = [_bound(statement) for statement in tree.body]
    by_name: dict[str, list[int]] = {}
    for place, names in enumerate(binds):
        for name in names:
            by_name.setdefault(name, []).append(place)
    idle: set[int] = set()
    asked = list(range(len(tree.body)))
    while asked:
        place = asked.pop()
        if place in idle or not binds[place] or any(read[name] for name in binds[place]):
            continue
        idle.add(place)
        for name, times in reads[place].items():
            read[name] -= times
            if not read[name]:
                asked += by_name.get(name, [])
    return ast.Module([each for place, each in enumerate(tree.body) if place not in idle], type_ignores=[])


def _bound(statement: ast.stmt) -> set[str]:
    """The names for which a statement is there alone; none where it does more."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return {name}
        case ast.Import() | ast.ImportFrom():
            return _imported(statement)
    return set()


def _loaded(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        # A name that is only added to is read as well, as `+=` needs what it was.
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id


def _imported(statement: ast.stmt) -> set[str]:
    aliases = statement.names if isinstance(statement, ast.Import | ast.ImportFrom) else []
    return {alias.asname or alias.name.partition(".")[0] for alias in aliases}


class _Orderer(ast.NodeTransformer):
    """Computes arithmetic on constants, where it is asked to, and sorts the operands of `+` and `*`."""

    def __init__(self, *, compute: bool) -> None:
        self._compute = compute

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = _number(node)
        return node if value is None else _constant(value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        value = _number(node.operand)
        return _constant(-value) if isinstance(node.op, ast.USub) and value is not None else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name(id=name), args=[only], keywords=[]) if (
                self._compute and name in _ROUNDING
            ):
                value = _number(only)
                return (
                    node if value is None or not math.isfinite(value) else _constant(_ROUNDING[name](value))
                )
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Sub):
            # a - b is a + (-b), so that it is the same as -b + a.
            node = ast.BinOp(node.left, ast.Add(), _negated(node.right))
        if not isinstance(node.op, ast.Add | ast.Mult):
            return (_compute(node.left, node.op, node.right) if self._compute else None) or node
        numbers: list[ast.expr] = []
        others: list[ast.expr] = []
        for operand in _operands(node, type(node.op)):
            (numbers if self._compute and _number(operand) is not None else others).append(operand)
        while len(numbers) > 1 and (both := _compute(numbers[0], node.op, numbers[1])) is not None:
            numbers[:2] = [both]
        first, *rest = sorted([*numbers, *others], key=ast.dump)
        for operand in rest:
            first = ast.BinOp(first, node.op, operand)
        return first


def _negated(node: ast.expr) -> ast.expr:
    value = _number(node)
    return ast.UnaryOp(ast.USub(), node) if value is None else _constant(-value)


def _operands(node: ast.expr, kind: type[ast.operator]) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, kind):
        yield from _operands(node.left, kind)
        yield from _operands(node.right, kind)
    else:
        yield node


def _number(node: ast.AST) -> float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # A longer one stays as it is written: no float holds it.
    return value if isinstance(value, float) or abs(value) < 10**_MAX_DIGITS else None


def _compute(left: ast.expr, how: ast.operator, right: ast.expr) -> ast.Constant | None:
    """The number that the operation gives; None where it is none, or would be very long."""
    one, other = _number(left), _number(right)
    if one is None or other is None or type(how) not in _ARITHMETIC:
        return None
    if isinstance(how, ast.Pow) and other * math.log10(abs(one) + 1) > _MAX_DIGITS:
        return None
    try:
        value = _ARITHMETIC[type(how)](one, other)
    except (ArithmeticError, ValueError):
        return None
    short = isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**_MAX_DIGITS)
    return _constant(value) if short else None


def _constant(value: float) -> ast.Constant:
    """The number as a program would write it: 42.0 is the answer 42."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return ast.Constant(int(value) if whole else value)

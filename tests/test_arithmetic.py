"""Elementary functions and eigenvalues of our own: as near as the library's, and nothing goes around them."""

import ast
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from placement.arithmetic import exp, expm1, log, log1p, matrix_product, power, weighted_sum
from solvers.bounds.spectrum import eigenvalues, spectrum

ROOT = Path(__file__).resolve().parents[1]
#: What BLAS, LAPACK, numpy's vector code and the C library do as the CPU allows.
UNLIKE = {
    "np": {"dot", "vdot", "inner", "matmul", "tensordot", "einsum", "linalg", "corrcoef", "cov", "exp", "exp2", "expm1"}
    | {"log", "log2", "log10", "log1p", "power", "float_power", "cbrt", "sin", "cos", "tan", "tanh", "argpartition"},
    "math": {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "cbrt", "sin", "cos", "tan", "tanh"},
}


@pytest.mark.parametrize(
    ("ours", "theirs", "numbers"),
    [
        (exp, math.exp, st.floats(-700, 700)),
        (exp, math.exp, st.floats(-1, 1)),
        (expm1, math.expm1, st.floats(-50, 700)),
        (expm1, math.expm1, st.floats(-1, 1)),
        (log, math.log, st.floats(1e-300, 1e300)),
        (log, math.log, st.floats(0.5, 2)),
        (log1p, math.log1p, st.floats(-0.99, 1e3)),
        (log1p, math.log1p, st.floats(-1e-3, 1e-3)),
    ],
)
def test_elementary_functions_are_within_four_units_of_the_last_place(
    ours: Callable[[float], float], theirs: Callable[[float], float], numbers: st.SearchStrategy[float]
) -> None:
    @given(numbers)
    def check(x: float) -> None:
        assert abs(ours(x) - theirs(x)) <= 4 * math.ulp(theirs(x))

    check()


def test_elementary_functions_beyond_their_range() -> None:
    assert [exp(x) for x in (-np.inf, -800.0, 800.0, np.inf)] == [0.0, 0.0, np.inf, np.inf]
    assert [expm1(x) for x in (-np.inf, -800.0, 0.0, 800.0)] == [-1.0, -1.0, 0.0, np.inf]
    assert np.isnan([exp(np.nan), expm1(np.nan)]).all()
    assert power(np.array([1, 4, 9]), 0.5) == pytest.approx([1, 2, 3], rel=1e-15)


def test_arrays_and_single_numbers_are_alike() -> None:
    x = np.random.default_rng(0).uniform(0.1, 5.0, 1001)
    for function in (exp, expm1, log):
        assert function(x).tolist() == [function(each) for each in x.tolist()]


def test_compiled_code_calls_the_same_functions() -> None:
    @njit
    def compiled(x: float) -> tuple[float, float, float]:
        return exp(x), expm1(x), log(x)

    for x in (0.1, 1.0, 39.5, 700.0):
        assert compiled(x) == (exp(x), expm1(x), log(x))


def test_products_are_those_of_matrices() -> None:
    rng = np.random.default_rng(1)
    left, right, deep = rng.random((5, 7)), rng.random((7, 3)), rng.random((5, 2, 4))
    assert matrix_product(left, right) == pytest.approx(left @ right)
    assert matrix_product(right.T, left.T) == pytest.approx(right.T @ left.T)
    assert weighted_sum(left[:, 0], deep) == pytest.approx(np.tensordot(left[:, 0], deep, 1))


@pytest.mark.parametrize("size", [1, 2, 3, 20, 65])
@pytest.mark.parametrize("kind", ["full", "sparse", "multiple of one", "of rank one", "nothing", "wide"])
def test_eigenvalues_are_those_of_lapack(size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    half = rng.standard_normal((size, size))
    matrix = {
        "full": half,
        "sparse": half * (rng.random((size, size)) < 0.1),
        "multiple of one": 3.0 * np.eye(size),
        "of rank one": np.outer(half[0], half[0]),
        "nothing": np.zeros((size, size)),
        "wide": half * 10.0 ** rng.integers(-160, 3, (size, size)),
    }[kind]
    matrix = matrix + matrix.T
    before = matrix.copy()
    values, vectors = spectrum(matrix)
    near = 1e-13 * size * max(1e-300, float(np.abs(matrix).max()))
    assert (matrix == before).all()
    assert np.sort(values) == pytest.approx(np.linalg.eigvalsh(matrix), abs=near)
    assert np.sort(eigenvalues(matrix)) == pytest.approx(np.sort(values), abs=near)
    assert (vectors.T * values) @ vectors == pytest.approx(matrix, abs=near)
    assert vectors @ vectors.T == pytest.approx(np.eye(size), abs=1e-12)


#: What it finds is rounded to the safe side by more than CPUs differ.
MARGINED = frozenset({"placement/check/reach.py"})


def unlike(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of all that may give other bits on another machine."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            yield node.lineno, "@"
        if isinstance(node, ast.Attribute) and node.attr in UNLIKE.get(getattr(node.value, "id", ""), ()):
            yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "argsort":
            kinds = [word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)]
            if not {"stable", "mergesort"}.intersection(kinds):
                yield node.lineno, "an argsort that is not stable"


@pytest.mark.parametrize("code", ["a @ b", "a @= b", "np.linalg.eigh(a)", "math.log(x)", "a.argsort()", "np.exp(x)"])
def test_what_rounds_as_the_cpu_does_is_seen(code: str) -> None:
    assert list(unlike(ast.parse(code)))


def test_nothing_that_decides_rounds_as_the_cpu_does() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for package in ("specs", "placement", "solvers")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.relative_to(ROOT).as_posix() not in MARGINED
        for line, what in unlike(ast.parse(path.read_text()))
    ]
    assert found == []

"""What everything else stands on: pytree dataclasses, run-time errors, input checks, the solver contract."""

from diffperturb.foundations.solver import Function, Solver, Vertices, as_maximizer, as_solver, inner, minimize
from diffperturb.foundations.errors import RunTimeValueError, error_if, refuse_derivative, run_time_checks
from diffperturb.foundations.pytrees import pytree_dataclass, static

__all__ = [
    "Function",
    "RunTimeValueError",
    "Solver",
    "Vertices",
    "as_maximizer",
    "as_solver",
    "error_if",
    "inner",
    "minimize",
    "pytree_dataclass",
    "refuse_derivative",
    "run_time_checks",
    "static",
]

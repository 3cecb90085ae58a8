"""Expectations without sampling, where a solver and a noise have an exact form."""

from diffperturb.exact.forms import Form, form
from diffperturb.exact.exact import Exact

__all__ = [
    "Exact",
    "Form",
    "form",
]

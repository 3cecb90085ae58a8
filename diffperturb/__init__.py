"""A workbench for learning through discrete decisions.

`import diffperturb as dp` costs next to nothing: a name such as `dp.Argmax` is imported when it is first used. So the
command line and the documentation tools start at once, and jax is loaded by those who compute.
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

# The public names that each chapter lends to the top level.
_NAMES = {
    "exact": ["Exact"],
    "expectation": [
        "Measured", "MonteCarlo", "MultiplicativePerturbed", "Perturbed", "Regression", "Samples", "ScoreFunction",
        "Sharded",
    ],
    "foundations": [
        "Function", "inner", "minimize", "run_time_checks", "Solver", "Vertices",
    ],
    "learning": [
        "Blackbox", "DirectLoss", "estimate", "FenchelYoungLoss", "GumbelSinkhorn", "GumbelSoftmax", "Identity",
        "IMLE", "NeuralSort", "Plane", "Regularizer", "RelaxedSubset", "SoftSort", "Sphere", "SPOPlus",
        "StraightThrough", "task_losses",
    ],
    "noise": [
        "Antithetic", "CenteredGumbel", "Correlated", "Density", "ExponentialPower", "Gumbel", "IID", "Laplace",
        "Logistic", "Normal", "Orthogonal", "Scaled", "Sobol", "Stratified", "StudentT", "SumOfGamma", "TwoPoint",
    ],
    "solvers": [
        "Argmax", "Assignment", "AtLeast", "AtMost", "BinaryChoice", "external", "Flow", "Graph", "GridPath",
        "GroupLassoBall", "Knapsack", "L1Ball", "L2Ball", "LinearProgram", "LinfBall", "Logic",
        "MixedIntegerProgram", "Negated", "NuclearBall", "Parity", "PartialMatching", "Ranking", "read_graph",
        "ShortestPath", "Sorting", "SpanningTree", "TopK", "TravelingSalesperson",
    ],
}
# Modules that are reached as attributes, too. They are no part of `__all__`, since some of them need extras.
_MODULES = {
    "datasets": "evidence.datasets",
    "diagnostics": "evidence.diagnostics",
    "evidence": "evidence",
    "explorers": "workbench.explorers",
    "figures": "workbench.figures",
    "learning_benchmark": "evidence.learning_benchmark",
    "theory": "evidence.theory",
    "workbench": "workbench",
}
_CHAPTER_OF = {name: chapter for chapter, names in _NAMES.items() for name in names}

__all__ = sorted([*_NAMES, *_CHAPTER_OF])

if TYPE_CHECKING:  # the same names for editors and type checkers, which do not run `__getattr__`
    from diffperturb import evidence as evidence, exact as exact, expectation as expectation
    from diffperturb import foundations as foundations, learning as learning, noise as noise
    from diffperturb import solvers as solvers, workbench as workbench
    from diffperturb.evidence import datasets as datasets, diagnostics as diagnostics
    from diffperturb.evidence import learning_benchmark as learning_benchmark, theory as theory
    from diffperturb.exact import Exact as Exact
    from diffperturb.expectation import (
        Measured as Measured, MonteCarlo as MonteCarlo, MultiplicativePerturbed as MultiplicativePerturbed,
        Perturbed as Perturbed, Regression as Regression, Samples as Samples, ScoreFunction as ScoreFunction,
        Sharded as Sharded,
    )
    from diffperturb.foundations import (
        Function as Function, inner as inner, minimize as minimize, run_time_checks as run_time_checks,
        Solver as Solver, Vertices as Vertices,
    )
    from diffperturb.learning import (
        Blackbox as Blackbox, DirectLoss as DirectLoss, estimate as estimate, FenchelYoungLoss as FenchelYoungLoss,
        GumbelSinkhorn as GumbelSinkhorn, GumbelSoftmax as GumbelSoftmax, Identity as Identity, IMLE as IMLE,
        NeuralSort as NeuralSort, Plane as Plane, Regularizer as Regularizer, RelaxedSubset as RelaxedSubset,
        SoftSort as SoftSort, Sphere as Sphere, SPOPlus as SPOPlus, StraightThrough as StraightThrough,
        task_losses as task_losses,
    )
    from diffperturb.noise import (
        Antithetic as Antithetic, CenteredGumbel as CenteredGumbel, Correlated as Correlated, Density as Density,
        ExponentialPower as ExponentialPower, Gumbel as Gumbel, IID as IID, Laplace as Laplace,
        Logistic as Logistic, Normal as Normal, Orthogonal as Orthogonal, Scaled as Scaled, Sobol as Sobol,
        Stratified as Stratified, StudentT as StudentT, SumOfGamma as SumOfGamma, TwoPoint as TwoPoint,
    )
    from diffperturb.solvers import (
        Argmax as Argmax, Assignment as Assignment, AtLeast as AtLeast, AtMost as AtMost,
        BinaryChoice as BinaryChoice, external as external, Flow as Flow, Graph as Graph, GridPath as GridPath,
        GroupLassoBall as GroupLassoBall, Knapsack as Knapsack, L1Ball as L1Ball, L2Ball as L2Ball,
        LinearProgram as LinearProgram, LinfBall as LinfBall, Logic as Logic,
        MixedIntegerProgram as MixedIntegerProgram, Negated as Negated, NuclearBall as NuclearBall,
        Parity as Parity, PartialMatching as PartialMatching, Ranking as Ranking, read_graph as read_graph,
        ShortestPath as ShortestPath, Sorting as Sorting, SpanningTree as SpanningTree, TopK as TopK,
        TravelingSalesperson as TravelingSalesperson,
    )
    from diffperturb.workbench import explorers as explorers, figures as figures
else:

    def __getattr__(name):
        if name in _CHAPTER_OF:
            value = getattr(import_module(f"{__name__}.{_CHAPTER_OF[name]}"), name)
        elif name in _NAMES or name in _MODULES:
            value = import_module(f"{__name__}.{_MODULES.get(name, name)}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # from now on without a detour
        return value

    def __dir__():
        return sorted({*globals(), *__all__, *_MODULES})

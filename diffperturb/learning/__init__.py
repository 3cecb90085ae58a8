"""Losses, layers and estimators that learn through a solver."""

from diffperturb.learning import task_losses
from diffperturb.learning.regularizer import DualPoint, Regularizer
from diffperturb.learning.fenchel_young import FenchelYoungLoss
from diffperturb.learning.estimation import Estimate, estimate
from diffperturb.learning.projections import (
    Plane,
    Projection,
    Sphere,
    first_part,
    informed_margin,
    keeps_solution,
    perturbed_scores,
    project,
)
from diffperturb.learning.collapse import CollapseReport, boundary_distance, collapse_report
from diffperturb.learning.surrogates import (
    AdaptiveLam,
    Blackbox,
    IMLE,
    Identity,
    SPOPlus,
    StraightThrough,
    Surrogate,
    decision_regret,
    loss_optimal_target,
    pid_target,
    symmetric_target,
)
from diffperturb.learning.task_losses import LinearLoss
from diffperturb.learning.direct import DirectLoss, LossScale, from_positive, to_positive
from diffperturb.learning.relaxations import (
    GumbelSinkhorn,
    GumbelSoftmax,
    NeuralSort,
    Relaxation,
    RelaxedSubset,
    SoftSort,
    marginal_error,
)

__all__ = [
    "AdaptiveLam",
    "Blackbox",
    "CollapseReport",
    "DirectLoss",
    "DualPoint",
    "Estimate",
    "FenchelYoungLoss",
    "GumbelSinkhorn",
    "GumbelSoftmax",
    "IMLE",
    "Identity",
    "LinearLoss",
    "LossScale",
    "NeuralSort",
    "Plane",
    "Projection",
    "Regularizer",
    "Relaxation",
    "RelaxedSubset",
    "SPOPlus",
    "SoftSort",
    "Sphere",
    "StraightThrough",
    "Surrogate",
    "boundary_distance",
    "collapse_report",
    "decision_regret",
    "estimate",
    "first_part",
    "from_positive",
    "informed_margin",
    "keeps_solution",
    "marginal_error",
    "perturbed_scores",
    "loss_optimal_target",
    "pid_target",
    "project",
    "symmetric_target",
    "task_losses",
    "to_positive",
]

"""Priors that remember pretrained weights: the published methods by name, and starting from a reference."""

from bayesreg.strength.rehearsal import Rehearsal, rehearse
from bayesreg.transfer.adapters import lora_prior
from bayesreg.transfer.depth import depth_graded
from bayesreg.transfer.ewc import ewc_prior
from bayesreg.transfer.fisher import Fisher, fisher_information
from bayesreg.transfer.flat import flat_statistics
from bayesreg.transfer.methods import centered_prior, group_lasso_sp, l1_sp, l2_sp
from bayesreg.transfer.rescale import rescaled
from bayesreg.transfer.start import load_into
from bayesreg.transfer.swag import SWAG, low_rank_prior

__all__ = [
    "SWAG",
    "Fisher",
    "Rehearsal",
    "centered_prior",
    "depth_graded",
    "ewc_prior",
    "fisher_information",
    "flat_statistics",
    "group_lasso_sp",
    "l1_sp",
    "l2_sp",
    "load_into",
    "lora_prior",
    "low_rank_prior",
    "rehearse",
    "rescaled",
]

"""What optimizers do with decay, and how far their next step goes."""

from bayesreg.optimizers.decay import DecayRule as DecayRule
from bayesreg.optimizers.decay import OptimizerLike as OptimizerLike
from bayesreg.optimizers.decay import class_of as class_of
from bayesreg.optimizers.decay import decay_rule as decay_rule
from bayesreg.optimizers.decay import decay_rule_of_group as decay_rule_of_group
from bayesreg.optimizers.decay import decay_rules as decay_rules
from bayesreg.optimizers.decay import hand_set_decay as hand_set_decay
from bayesreg.optimizers.decay import require_coupled as require_coupled
from bayesreg.optimizers.decay import steady_gain as steady_gain
from bayesreg.optimizers.decay import unwrap as unwrap

__all__ = [
    "DecayRule",
    "OptimizerLike",
    "class_of",
    "decay_rule",
    "decay_rule_of_group",
    "decay_rules",
    "hand_set_decay",
    "require_coupled",
    "steady_gain",
    "unwrap",
]

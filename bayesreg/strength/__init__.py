"""How strong a prior should be, from the data it is for: `br.choose_strength`, and what it is made of."""

from bayesreg.strength.choice import Choice, OwnScale, Step
from bayesreg.strength.evidence import Evidence, evidence
from bayesreg.strength.loo import LeaveOneOut, loo

__all__ = ["Choice", "Evidence", "LeaveOneOut", "OwnScale", "Step", "evidence", "loo"]

"""How a prior reaches the weights: native decay, gradients, proximal steps."""

from bayesreg.routes.attach import Handle, attach

__all__ = ["Handle", "attach"]

"""How a prior reaches the weights: native decay, gradients, proximal steps, the loss, a decoupled pull."""

from bayesreg.routes.attach import Handle, attach, detach

__all__ = ["Handle", "attach", "detach"]

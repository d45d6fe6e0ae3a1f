"""The MAP objective: the one equation."""

from __future__ import annotations

from torch import Tensor

from bayesreg._support.calls import answering
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors.contract.asking import require_map

__all__ = ["MAPObjective"]


class MAPObjective:
    r"""J(θ) = (training loss) + s · (−log p(θ)), the prior's constant left out.

    For loops that want the prior in the loss, by autograd: closures, L-BFGS, a first try. `br.attach` gives the
    same optimum at a fraction of the cost. The constant of log p is left out because it moves no minimum and, at
    many weights and few data, drowns the loss in float32.

    Args:
        prior: The prior over the model.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another.

    Raises:
        InvalidArgumentError: If num_data is neither.
        UnsupportedError: If a prior has no MAP (the density of a horseshoe), or no slope to follow (L0).

    Example:
        >>> import torch, bayesreg as br
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> objective = MAPObjective(br.ModelPrior(model, br.Gaussian(scale=1.0)), num_data=10)
        >>> objective.penalty().item()  # s/2 · ‖w‖² = 0.1/2 · 2
        0.1
        >>> objective(mean_nll=torch.tensor(1.0)).item()
        1.1
    """

    @answering
    def __init__(self, prior: ModelPrior, num_data: int | LossScale) -> None:
        self.prior = prior
        self.loss_scale = as_loss_scale(num_data)
        for entry, part in prior.active():
            require_map(part, entry.name)
            if not part.traits.has_slope:
                raise UnsupportedError(
                    f"{entry.name}: {part.family} has no slope anywhere, so in a loss it does nothing; train it with "
                    f"br.attach or br.MAPTrainer (proximal steps)."
                )

    def penalty(self) -> Tensor:
        """Return s · (−log p) of the current parameters without its constant; differentiable."""
        return self.loss_scale.value * self.prior.penalty()

    def __call__(self, mean_nll: Tensor) -> Tensor:
        """Return training loss + penalty.

        Args:
            mean_nll: The training loss (the mean NLL, if num_data was given as a number).

        Returns:
            The objective, a scalar.
        """
        penalty = self.penalty()
        return mean_nll + penalty.to(device=mean_nll.device)

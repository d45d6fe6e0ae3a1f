"""All that is watched around the steps of one optimizer, in the order in which a step comes to it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch.optim import Optimizer

from bayesreg.conversion import LossScale
from bayesreg.errors import HeldNormWarning, UnsupportedError
from bayesreg.routes.planning.plan import GroupPlan
from bayesreg.routes.watches.clip import ClipWatch
from bayesreg.routes.watches.halves import HalfWatch
from bayesreg.routes.watches.norms import NormWatch
from bayesreg.routes.watches.overshoot import OvershootWatch
from bayesreg.routes.watches.rounding import RoundingWatch
from bayesreg.routes.watches.use import UseWatch
from bayesreg.routes.watches.zeros import ZerosWatch

__all__ = ["Watches"]


class Watches:
    """What may go wrong between a prior and the weights, each looked at where it shows.

    Args:
        optimizer: The optimizer.
        plans: Its routes.
        loss_scale: s.
        unknown: Groups of which it is not known whether the optimizer uses `.grad` at the step.
        clip: Looks for a clip between backward and step; one for all optimizers of a handle.
        wide: Whether steps are taken in float32, so that no pull is too small.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        plans: Sequence[GroupPlan],
        loss_scale: LossScale,
        *,
        unknown: Sequence[int],
        clip: ClipWatch | None,
        wide: bool,
    ) -> None:
        self._optimizer, self._loss_scale, self._wide, self._clip = optimizer, loss_scale, wide, clip
        self._torchs_own = type(optimizer).__module__.startswith("torch.optim")
        self._use = UseWatch(optimizer, unknown)
        self._norms = NormWatch(optimizer, plans)
        self.take(plans)

    def take(self, plans: Sequence[GroupPlan]) -> None:
        """Begin again with other routes."""
        self._rounding = RoundingWatch(self._optimizer, plans, self._loss_scale)
        self._halves = HalfWatch(self._optimizer, plans, self._loss_scale)
        self._overshoot = OvershootWatch(self._optimizer, plans, self._loss_scale)
        self._zeros = ZerosWatch(plans)

    def before_step(self) -> None:
        """Look at learning rates and weights.

        Raises:
            UnsupportedError: If a third-party optimizer holds the norm of weights under a prior centred at zero.
        """
        groups = self._optimizer.param_groups
        if not self._wide:
            self._rounding.check(groups)
        self._overshoot.check(groups)
        if self._zeros:
            self._zeros.check()
        if self._norms and (held := self._norms.look()):
            words = self._norms.words(held)
            if not self._torchs_own:
                raise UnsupportedError(words)
            warnings.warn(words, HeldNormWarning, stacklevel=4)

    def before_adding(self, *, by_hand: bool = False) -> None:
        """Look at gradients right before the prior's is added to them.

        Args:
            by_hand: The loop does it before its clip.
        """
        if self._clip and not by_hand:
            self._clip.look(self._optimizer)
        if self._halves and not self._wide:
            self._halves.look(self._optimizer.param_groups)

    def added(self, *, between: bool) -> None:
        """Watch the gradients, which have the prior in them now, to the end of the step.

        Args:
            between: Whether this is right before a step without a closure.
        """
        if self._use:
            self._use.arm(between=between)

    def after_step(self) -> None:
        """Look whether the gradients were used."""
        if self._use:
            self._use.judge()

    def after_prox(self) -> None:
        """Remember which weights the proximal steps have put on a kink."""
        if self._zeros:
            self._zeros.note()

    def close(self) -> None:
        """Take the hooks off the parameters."""
        if self._clip is not None:
            self._clip.close()

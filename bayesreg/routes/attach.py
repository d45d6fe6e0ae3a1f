"""One line on an existing optimizer: its steps then minimise the MAP objective."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from bayesreg._describe import describe_routes
from bayesreg._tables import Table
from bayesreg.errors import CoverageError, InvalidArgumentError, UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.priors import Gaussian
from bayesreg.routes.metric import effective_step
from bayesreg.routes.plan import GroupPlan, Planned, make_plan
from bayesreg.scale import LossScale, as_loss_scale

__all__ = ["Handle", "attach"]

_attached: weakref.WeakSet[Optimizer] = weakref.WeakSet()

# Proximal steps of adaptive optimizers are at most this many learning rates long, see _capped.
_LONGEST = 10.0


def attach(
    optimizer: Optimizer,
    prior: ModelPrior,
    num_data: int | None = None,
    *,
    loss_scale: LossScale | None = None,
    before_clip: bool = False,
) -> Handle:
    """Make an optimizer minimise training loss + s · (−log p): the MAP under `prior`.

    The cheapest exact route is chosen for each param group: the optimizer's own weight decay for isotropic Gaussians
    on coupled optimizers; the prior's gradient, added once per step, for smooth priors; proximal steps in the
    optimizer's metric for priors with a kink. The loop stays as it is: backward(), step(); or step(closure), where for
    LBFGS the prior's value enters the line search.

    Args:
        optimizer: Any torch optimizer but SparseAdam, with no weight decay of its own; built from
            `prior.param_groups()` or `model.parameters()`.
        prior: The prior over the model.
        num_data: Size of the training set, for a mean loss.
        loss_scale: The scale of another loss, in place of num_data.
        before_clip: For loops that clip gradients: call `handle.apply_()` between backward() and the clip, so that
            the clip does not change the prior's strength. With a kinked prior call `handle.clipped(...)` after it.

    Returns:
        A handle: `describe()`, `remove()`.

    Raises:
        InvalidArgumentError: If num_data is missing, or the optimizer has a weight decay of its own.
        CoverageError: If prior and optimizer do not hold the same parameters.
        UnsupportedError: If no exact route exists.

    Example:
        >>> import bayesreg as br
        >>> model = torch.nn.Linear(3, 1)
        >>> prior = br.ModelPrior(model, br.Gaussian(scale=0.5))
        >>> optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
        >>> handle = br.attach(optimizer, prior, num_data=1000)
        >>> optimizer.param_groups[0]["weight_decay"]  # 1 / (1000 · 0.5²)
        0.004
    """
    if not isinstance(prior, ModelPrior):
        raise InvalidArgumentError(
            f"prior: expected a ModelPrior, got {type(prior).__name__}; write br.ModelPrior(model, prior), and the "
            f"optimizer first: br.attach(optimizer, prior, num_data=n)."
        )
    if (num_data is None) == (loss_scale is None):
        raise InvalidArgumentError(
            "num_data: pass the size of the training set, num_data=n, or loss_scale= for a loss that is not a mean "
            "over examples (one of the two)."
        )
    scale = LossScale.mean(num_data) if num_data is not None else as_loss_scale(loss_scale)  # type: ignore[arg-type]
    return Handle(optimizer, prior, scale, before_clip=before_clip)


class Handle:
    """A prior attached to an optimizer; made by `br.attach`.

    Args:
        optimizer: The optimizer.
        prior: The prior.
        loss_scale: s.
        before_clip: See `attach`.
        without_prior: Parameters of the optimizer that are meant to have no prior.

    Raises:
        InvalidArgumentError: If a prior is attached already.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        prior: ModelPrior,
        loss_scale: LossScale,
        *,
        before_clip: bool = False,
        without_prior: Iterable[Tensor] = (),
    ) -> None:
        if optimizer in _attached:
            raise InvalidArgumentError("this optimizer has a prior attached already; call handle.remove() first.")
        self.loss_scale = loss_scale
        self._optimizer = optimizer
        self._before_clip = before_clip
        self._applied = False
        self._clip_factor: float | None = None
        self._plan = make_plan(optimizer, prior, loss_scale, before_clip=before_clip, without_prior=without_prior)
        for entry in prior:
            if entry.prior is not None:
                entry.prior.to(entry.parameter.device)
        self._set_decay()
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            # A checkpoint carries the decay of the run that wrote it.
            optimizer.register_load_state_dict_post_hook(lambda _: self._set_decay()),
        ]
        _attached.add(optimizer)

    def remove(self) -> None:
        """Detach the prior: hooks are gone, native weight decay is 0 again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for plan, group in self._groups():
            if plan.decay:
                group["weight_decay"] = 0.0
        _attached.discard(self._optimizer)

    def apply_(self) -> None:
        """Add the prior's gradient to `.grad` now; for `attach(..., before_clip=True)`, once per step before the clip.

        Each call adds it: call it once between backward() and the clip.

        Raises:
            InvalidArgumentError: If the prior was not attached with before_clip=True, or removed.
        """
        if not self._hooks:
            raise InvalidArgumentError("apply_(): this prior was removed from its optimizer; attach it again.")
        if not self._before_clip:
            raise InvalidArgumentError("apply_() is for br.attach(..., before_clip=True); without it steps do it.")
        self._add_gradients()
        self._applied = True

    def clipped(self, total_norm: float | Tensor, max_norm: float) -> None:
        """Say how much the gradients were clipped, so that proximal steps shrink alike.

        Args:
            total_norm: What `torch.nn.utils.clip_grad_norm_` returned.
            max_norm: What it was given.
        """
        self._clip_factor = min(1.0, max_norm / (float(total_norm) + 1e-6))

    def describe(self) -> Table:
        """Return a table of which parameters take which route with which strength."""
        members = [(m.entry.name, m.prior, m.route) for plan in self._plan for m in plan.members]
        return describe_routes(f"Prior on {type(self._optimizer).__name__}", members, self.loss_scale)

    # -- hooks -----------------------------------------------------------------------------------------

    def _groups(self) -> Iterator[tuple[GroupPlan, dict[str, Any]]]:
        # Read afresh: loading a state dict replaces the group dictionaries.
        return zip(self._plan, self._optimizer.param_groups, strict=False)

    def _set_decay(self) -> None:
        for plan, group in self._groups():
            if "weight_decay" in group or plan.decay:
                group["weight_decay"] = plan.decay
            if "lambd" in group:
                group["lambd"] = 0.0

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._check_parameters(optimizer)
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is not None:
            # The gradients are made inside the step, after this hook: the prior must go in there too.
            if self._before_clip:
                raise UnsupportedError(
                    "optimizer.step(closure) makes its gradients inside the step, so a clip before it clips nothing; "
                    "call the closure yourself, then handle.apply_(), the clip and step()."
                )
            wrapped = self._with_prior(closure)
            if "closure" in kwargs:
                return args, {**kwargs, "closure": wrapped}
            return (args[0], wrapped, *args[2:]), kwargs
        if self._before_clip:
            self._check_clip()
        else:
            self._add_gradients()
        self._applied = False
        return None

    def _with_prior(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return the closure with the prior's gradient added, and for line searches its value too."""
        searches = isinstance(self._optimizer, LBFGS)

        def wrapped() -> Any:
            loss = closure()
            self._add_gradients()
            return loss + self._penalty() if searches else loss

        return wrapped

    @torch.no_grad()
    def _penalty(self) -> float:
        terms = (m.prior.penalty(m.parameter) for plan in self._plan for m in plan.members if m.parameter.requires_grad)
        return self.loss_scale.value * sum(float(term) for term in terms)

    def _check_parameters(self, optimizer: Optimizer) -> None:
        if len(optimizer.param_groups) != len(self._plan):
            raise CoverageError("param groups were added after br.attach; remove() the handle and attach again.")
        for index, (plan, group) in enumerate(self._groups()):
            if group.get("weight_decay", 0.0) != plan.decay:
                raise InvalidArgumentError(
                    f"weight_decay of param group {index} was changed to {group['weight_decay']:g} after br.attach set "
                    f"{plan.decay:g}: the prior decides it. To change the strength, remove() the handle and attach "
                    f"another prior."
                )
            for member in plan.members:
                if member.entry.parameter is not member.parameter:
                    raise CoverageError(
                        f"{member.entry.name} of the model is another tensor than the one the optimizer holds (loaded "
                        f"with assign=True, or replaced, after br.attach); build the optimizer again and attach again."
                    )

    def _check_clip(self) -> None:
        if not self._applied:
            raise InvalidArgumentError(
                "the prior was attached with before_clip=True, but handle.apply_() was not called before this step."
            )
        if self._clip_factor is None and any(plan.on("proximal") for plan in self._plan):
            raise InvalidArgumentError(
                "a prior with a kink was attached with before_clip=True: after clip_grad_norm_ call "
                "handle.clipped(total_norm, max_norm), so that the proximal step is clipped alike."
            )

    @torch.no_grad()
    def _add_gradients(self) -> None:
        # GradScaler leaves its scale here for fused optimizers, whose gradients are still scaled.
        amp = getattr(self._optimizer, "grad_scale", None)
        amp_scale = 1.0 if amp is None else float(amp)
        s = self.loss_scale.value
        for plan, group in self._groups():
            # Every optimizer negates the gradient for `maximize` before it adds its decay, which shrinks either way.
            sign = -1.0 if group.get("maximize") else 1.0
            for member in plan.on("gradient"):
                grad = _dense_grad(member)
                if grad is not None:
                    member.prior.add_grad_([grad], [member.parameter.detach()], sign * amp_scale * s)
            self._add_centres(plan, sign * amp_scale * plan.decay)

    def _add_centres(self, plan: GroupPlan, strength: float) -> None:
        """Turn the optimizer's own pull λθ into λ(θ − loc)."""
        for member in plan.on("native + centre"):
            grad = _dense_grad(member)
            if grad is None:
                continue
            assert isinstance(member.prior, Gaussian)
            if member.prior.loc.ndim:
                grad.add_(member.prior.loc, alpha=-strength)
            else:
                grad.sub_(strength * float(member.prior.loc))

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return
        for plan, group in self._groups():
            for member in plan.on("proximal"):
                if member.parameter.grad is None:
                    continue
                factor = self.loss_scale.value * (1.0 if self._clip_factor is None else self._clip_factor)
                step = effective_step(optimizer, member.parameter, group)
                if isinstance(step, Tensor):
                    step = _capped(step, member, group, factor)
                member.prior.prox_(member.parameter, factor * step)
        self._clip_factor = None


def _capped(step: Tensor, member: Planned, group: dict[str, Any], factor: float) -> Tensor:
    """Keep a proximal step from moving a weight further than a few learning rates."""
    # Where an adaptive optimizer has met no gradient yet its step size is lr/eps, and one proximal step would throw a
    # pretrained weight to zero. The cap leaves the fixed point alone: at a nonzero weight the gradient equals the
    # prior's slope, so the move is one learning rate; at a zero the optimizer's own move is about one at most.
    slope = torch.zeros_like(step)
    member.prior.add_grad_([slope], [member.parameter], factor)
    rate = float(group["lr"]) / (1.0 - float(group.get("momentum", 0.0)))
    return torch.minimum(step, _LONGEST * rate / slope.abs())


def _dense_grad(member: Planned) -> Tensor | None:
    """Return the gradient, None where there is none; a parameter without gradient feels no prior, as in torch."""
    grad = member.parameter.grad
    if grad is not None and grad.is_sparse:
        raise UnsupportedError(
            f"{member.entry.name}: its gradient is sparse, a prior's is dense; build the embedding with sparse=False."
        )
    return grad

"""One line on an existing optimizer: its steps then minimise the MAP objective."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bayesreg._support.calls import answering
from bayesreg._support.tables import Table
from bayesreg.conversion import LossScale, as_loss_scale
from bayesreg.errors import InvalidArgumentError, UnsupportedError
from bayesreg.model_prior import ModelPrior
from bayesreg.optimizers import unwrap
from bayesreg.optimizers.attached import attachment_of, forget
from bayesreg.optimizers.others import let_be
from bayesreg.routes.attachment import Attachment
from bayesreg.routes.planning.arriving import groups_to_watch
from bayesreg.routes.planning.plan import GroupPlan, RouteLike, Routing, make_plan
from bayesreg.routes.planning.refusals import check_membership, covered_by
from bayesreg.routes.report import describe_attachments, log_attachments
from bayesreg.routes.sums import joint_terms, penalty_of
from bayesreg.routes.watches.clip import ClipWatch
from bayesreg.routes.watches.unfrozen import UnfrozenWatch

__all__ = ["Handle", "attach", "detach"]


@answering
def attach(
    optimizer: Optimizer | Sequence[Optimizer],
    prior: ModelPrior,
    num_data: int | LossScale,
    *,
    route: RouteLike = "auto",
    before_clip: bool = False,
    float32_master: bool = False,
) -> Handle:
    """Make an optimizer minimise training loss + s · (−log p): the MAP under `prior`.

    The cheapest exact route is chosen for each param group: the optimizer's own weight decay for isotropic Gaussians
    on coupled optimizers; the prior's gradient, added once per step, for smooth priors; proximal steps in the
    optimizer's metric for priors with a kink. The loop stays as it is: backward(), step(); or step(closure), where for
    LBFGS the prior's value enters the line search. On the gradient route the step adds to `.grad` in place: gradients
    are made afresh for every step, as loops do.

    Args:
        optimizer: Any torch or third-party optimizer with no weight decay of its own, built from
            `prior.param_groups()` or `model.parameters()`; a list of optimizers where several share the model. Wrappers
            of Accelerate and Lightning are seen through.
        prior: The prior over the model.
        num_data: Size of the training set of a mean loss, or the `LossScale` of another; of a language model's, which
            is a mean over tokens, `LossScale.tokens(number of tokens)`.
        route: "auto", or a route by name: "native", "gradient", "proximal", "loss" (the loop adds `handle.penalty()` to
            its loss) or "decoupled" (θ ← θ − lr·λ·(θ − loc), which is not the MAP of the prior; `describe()` reports
            what it is). A mapping from rules, as in `ModelPrior`, to names chooses for each parameter.
        before_clip: For loops that clip gradients: call `handle.apply_()` between backward() and the clip, so that
            the clip does not change the prior's strength. With a kinked prior call `handle.clipped(...)` after it.
        float32_master: For weights in bfloat16 or float16, where a pull smaller than the dtype resolves is lost: each
            step is taken in float32, on a copy that the optimizer's state goes with, and the weights are rounded from
            it. Costs 4 bytes per weight.

    Returns:
        A handle: `describe()`, `log()`, `remove()`.

    Raises:
        InvalidArgumentError: If num_data is missing, or the optimizer has a weight decay or a prior of its own.
        CoverageError: If prior and optimizers do not hold the same parameters, each once.
        PatternError: If a rule of `route` matches nothing.
        UnsupportedError: If no exact route exists, or the one asked for is not exact.

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
    return Handle(
        optimizer, prior, as_loss_scale(num_data), route=route, before_clip=before_clip, float32_master=float32_master
    )


@answering
def detach(optimizer: Optimizer) -> None:
    """Take the prior off an optimizer: an attached one, or what a copy or a checkpoint has kept of it.

    Args:
        optimizer: The optimizer.

    Example:
        >>> import bayesreg as br
        >>> model = torch.nn.Linear(3, 1)
        >>> prior = br.ModelPrior(model, br.Gaussian(scale=0.5))
        >>> optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
        >>> handle = br.attach(optimizer, prior, num_data=1000)
        >>> br.detach(optimizer)
        >>> optimizer.param_groups[0]["weight_decay"]
        0.0
    """
    inner = unwrap(optimizer)
    attachment = attachment_of(inner)
    if attachment is not None:
        attachment.remove()
    else:
        forget(inner)
        let_be(inner)


class Handle:
    """A prior attached to an optimizer, or to several that share the model; made by `br.attach`.

    Args:
        optimizer: The optimizer or optimizers.
        prior: The prior.
        loss_scale: s.
        route: See `attach`.
        before_clip: See `attach`.
        float32_master: See `attach`.
        without_prior: Parameters of the optimizers that are meant to have no prior.

    Raises:
        InvalidArgumentError: If a prior is attached already.
        UnsupportedError: If float32_master is asked for with before_clip.
    """

    def __init__(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        prior: ModelPrior,
        loss_scale: LossScale,
        *,
        route: RouteLike = "auto",
        before_clip: bool = False,
        float32_master: bool = False,
        without_prior: Iterable[Tensor] = (),
    ) -> None:
        optimizers = _optimizers(optimizer)
        if float32_master and before_clip:
            raise UnsupportedError(
                "float32_master: with before_clip=True the prior is added to gradients in half precision, where it is "
                "lost before the step; keep the weights in float32 (mixed precision by autocast does)."
            )
        self.loss_scale = loss_scale
        self._before_clip = before_clip
        free = list(without_prior)
        routing = Routing(route, list(prior))
        if any(attachment_of(one) is not None for one in optimizers):
            raise InvalidArgumentError("this optimizer has a prior attached already; call handle.remove() first.")

        def plan_again(one: Optimizer) -> list[GroupPlan]:
            check_membership(optimizers, prior, free)
            plans = make_plan(one, covered_by(prior), loss_scale, routing, before_clip=before_clip)
            groups_to_watch(one, plans, before_clip=before_clip)
            return plans

        check_membership(optimizers, prior, free)
        covered = covered_by(prior)
        # All refusals before the first change.
        plans = [make_plan(one, covered, loss_scale, routing, before_clip=before_clip) for one in optimizers]
        watched = [
            groups_to_watch(one, plan, before_clip=before_clip) for one, plan in zip(optimizers, plans, strict=True)
        ]

        def held(parameter: Tensor) -> bool:
            return any(p is parameter for one in optimizers for group in one.param_groups for p in group["params"])

        def unheld() -> UnfrozenWatch:
            inside = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
            outside = [e for e in prior if e.prior is not None and id(e.parameter) not in inside]
            return UnfrozenWatch(outside, held)

        uncovered = [entry.info for entry in prior if entry.prior is None]
        for entry in prior:
            if entry.prior is not None:
                entry.prior.to(entry.parameter.device)
        self._parts: list[Attachment] = []
        self._copy_of: str | None = None
        terms = joint_terms(prior.terms)
        # On the route "loss" the prior is clipped with the rest.
        acts = any(plan.on("native", "native + centre", "gradient", "proximal") for one in plans for plan in one)
        clip = ClipWatch(optimizers) if acts and not before_clip else None
        try:
            for one, plan, watch in zip(optimizers, plans, watched, strict=True):
                again = partial(plan_again, one)
                self._parts.append(
                    Attachment(
                        one,
                        plan,
                        again,
                        terms,
                        loss_scale,
                        uncovered,
                        before_clip=before_clip,
                        watched=watch,
                        clip=clip,
                        unheld=unheld,
                        float32_master=float32_master,
                    )
                )
        except BaseException:
            self.remove()
            if clip is not None:
                clip.close()
            raise

    def __reduce__(self) -> Any:
        """Return a handle of nothing: hooks go into no copy, and a copied optimizer says so at its step."""
        return _copied, (repr(self),)

    def _require_live(self, what: str) -> None:
        if self._copy_of is not None:
            raise InvalidArgumentError(
                f"{what}: this is a copy of {self._copy_of}, which copying or pickling took off its optimizer; attach "
                f"the prior to the copied optimizer, br.attach(optimizer, prior, num_data=n), and use that handle."
            )
        if not all(part.live for part in self._parts):
            raise InvalidArgumentError(f"{what}: this prior was removed from its optimizer; attach it again.")

    def __repr__(self) -> str:
        if self._copy_of is not None:
            return f"Handle(a copy of {self._copy_of})"
        names = ", ".join(type(part.optimizer).__name__ for part in self._parts)
        state = "" if all(part.live for part in self._parts) else ", removed"
        return f"Handle({names}, s={self.loss_scale.value:.4g}{state})"

    def remove(self) -> None:
        """Detach the prior: hooks are gone, native weight decay is 0 again."""
        for part in self._parts:
            part.remove()

    def apply_(self, optimizer: Optimizer | None = None) -> None:
        """Add the prior's gradient to `.grad` now; for `attach(..., before_clip=True)`, once per step before the clip.

        Call it once between backward() (and `scaler.unscale_(optimizer)`) and the clip; in a loop that passes a closure
        to step(), in the closure.

        Args:
            optimizer: The one that steps next, where optimizers that were attached together step one by one.

        Raises:
            InvalidArgumentError: If the prior was not attached with before_clip=True, or removed; if there are no
                gradients, they are still scaled, or the prior was added to them already; if the prior is not attached
                to that optimizer.
        """
        self._require_live("apply_()")
        if not self._before_clip:
            raise InvalidArgumentError("apply_() is for br.attach(..., before_clip=True); without it steps do it.")
        for part in self._of(optimizer):
            part.apply_before_clip()

    def clipped(self, total_norm: float | Tensor, max_norm: float, optimizer: Optimizer | None = None) -> None:
        """Say how much the gradients were clipped, so that proximal steps shrink alike.

        Args:
            total_norm: What `torch.nn.utils.clip_grad_norm_` returned.
            max_norm: What it was given.
            optimizer: The one whose gradients these are, as in `apply_`.

        Raises:
            InvalidArgumentError: If the prior is not attached to that optimizer.
        """
        if self._copy_of is not None:
            self._require_live("clipped()")
        for part in self._of(optimizer):
            part.clipped(min(1.0, max_norm / (float(total_norm) + 1e-6)))

    def _of(self, optimizer: Optimizer | None) -> list[Attachment]:
        if optimizer is None:
            return self._parts
        found = [part for part in self._parts if part.optimizer is unwrap(optimizer)]
        if not found:
            raise InvalidArgumentError(
                f"optimizer: this prior is attached to {len(self._parts)} "
                f"({', '.join(type(part.optimizer).__name__ for part in self._parts)}), and not to the "
                f"{type(optimizer).__name__} given."
            )
        return found

    def penalty(self) -> Tensor:
        """Return s · (−log p) of the parameters on the route "loss", for the loop to add to its training loss.

        Add it once per step: with accumulation over K micro-batches, to one of them.

        Returns:
            A scalar, differentiable; the prior's constant is left out.

        Raises:
            InvalidArgumentError: If no parameter takes the route "loss".

        Example:
            >>> import bayesreg as br
            >>> model = torch.nn.Linear(3, 1, bias=False)
            >>> _ = torch.nn.init.ones_(model.weight)
            >>> prior = br.ModelPrior(model, br.Gaussian(scale=1.0))
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> handle = br.attach(optimizer, prior, num_data=10, route="loss")
            >>> loss = torch.zeros(()) + handle.penalty()  # 3 · ½ / 10
            >>> round(loss.item(), 4)
            0.15
        """
        self._require_live("penalty()")
        for part in self._parts:
            part.refresh()
        if not any(m.route == "loss" for part in self._parts for m in part.members()):
            raise InvalidArgumentError(
                "penalty() is for br.attach(..., route='loss'): on the other routes the step itself does it, and a "
                "penalty in the loss would count the prior twice. To look at its value: handle.log()."
            )
        total = torch.zeros(())
        for part in self._parts:
            part.counted_in_loss()
            for plan, group in part.groups():
                share = penalty_of(plan.on("loss"), part.terms)
                # A loss that is maximised goes up where the penalty goes down.
                total = total.to(share) + (-share if group.get("maximize") else share)
        scaled: Tensor = self.loss_scale.value * total
        return scaled

    def describe(self) -> Table:
        """Return a table of which parameters take which route with which strength, and what could be better."""
        if self._copy_of is not None:
            self._require_live("describe()")
        return describe_attachments(self._parts)

    def log(self) -> dict[str, Any]:
        """Return the prior's terms at the current weights, for one's own log.

        All in nats, over the whole training set, comparable with the summed NLL; `penalty_in_loss` is on the scale of
        the training loss. One pass over the weights.

        Returns:
            `log_prior` = `log_prior_constant` − `penalty`; `penalty_in_loss` = s · `penalty`; `loss_scale` = s; and
            under `groups` the same per param group and prior, with `parameters`, `prior`, `route` and the equivalent
            `weight_decay` (None where there is none).

        Example:
            >>> import bayesreg as br
            >>> model = torch.nn.Linear(2, 1, bias=False)
            >>> _ = torch.nn.init.ones_(model.weight)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> handle = br.attach(optimizer, br.ModelPrior(model, br.Gaussian(scale=1.0)), num_data=10)
            >>> terms = handle.log()
            >>> terms["penalty"], terms["penalty_in_loss"], terms["groups"][0]["weight_decay"]
            (1.0, 0.1, 0.1)
        """
        if self._copy_of is not None:
            self._require_live("log()")
        return log_attachments(self._parts)


def _copied(words: str) -> Handle:
    made = Handle.__new__(Handle)
    made._parts, made._copy_of = [], words
    return made


def _optimizers(given: Optimizer | Sequence[Optimizer]) -> list[Optimizer]:
    several = list(given) if isinstance(given, list | tuple) else [given]
    # Lightning's wrapper is no torch optimizer itself.
    found = [one for one in map(unwrap, several) if isinstance(one, Optimizer)]
    if not found or len(found) != len(several):
        raise InvalidArgumentError(
            f"optimizer: expected a torch optimizer or a list of them, got {type(given).__name__}; the optimizer comes "
            f"first: br.attach(optimizer, prior, num_data=n)."
        )
    return found

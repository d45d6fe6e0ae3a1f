"""Whether a prior's pull reaches the weights through optimizers that are not torch's, and stays."""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

import bayesreg as br
from bayesreg.optimizers.arrival import arrival
from bayesreg.optimizers.decay import decay_rule

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]], dtype=torch.float64)


class Ivon(Optimizer):
    """The order of calls of IVON: gradients are taken as a context ends, before step(), which refuses to run without.

    Written from the description of the algorithm; it draws no noise, so that it is plain gradient descent.
    """

    def __init__(self, params, lr=0.1, ess=40.0):
        super().__init__(params, {"lr": lr, "ess": ess})
        self.taken = None

    @contextlib.contextmanager
    def sampled_params(self, train=False):
        yield
        if train:
            self.taken = {p: p.grad.detach().clone() for g in self.param_groups for p in g["params"]}

    @torch.no_grad()
    def step(self, closure=None):
        if self.taken is None:
            raise RuntimeError("step() without sampled_params(train=True)")
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(self.taken[p], alpha=-group["lr"])
        self.taken = None


class InHook(Optimizer):
    """Takes each gradient as it is accumulated."""

    def __init__(self, params, lr=0.1, keep=True):
        super().__init__(params, {"lr": lr, "keep": keep})
        self.taken = {}
        for group in self.param_groups:
            for p in group["params"]:
                p.register_post_accumulate_grad_hook(self.take)

    def take(self, p):
        self.taken[p] = p.grad.detach().clone()
        if not self.param_groups[0]["keep"]:
            p.grad = None

    @torch.no_grad()
    def step(self, closure=None):
        for p, grad in self.taken.items():
            p.add_(grad, alpha=-self.param_groups[0]["lr"])


class InBackward(InHook):
    """Steps while gradients are made."""

    @torch.no_grad()
    def take(self, p):
        p.add_(p.grad, alpha=-self.param_groups[0]["lr"])
        p.grad = None


class Only(InBackward):
    """The same, which cannot be tried on a toy: it wants a model."""

    def __init__(self, params, model, lr=0.1):
        super().__init__(params, lr)


def on_sphere(base, rows=False):
    """Return an optimizer that holds the norms of matrices, or of their rows."""

    class OnSphere(base):
        def __init__(self, params, lr=0.1):
            super().__init__(params, lr=lr)

        def step(self, closure=None):
            def norm(p):
                return p.detach().norm(dim=1, keepdim=True) if rows else p.detach().norm()

            weights = [p for group in self.param_groups for p in group["params"] if p.ndim > 1]
            before = [norm(p) for p in weights]
            loss = super().step(closure)
            with torch.no_grad():
                for p, size in zip(weights, before, strict=True):
                    p.mul_(size / norm(p))
            return loss

    return OnSphere


class OnUnitSphere(SGD):
    """Has norm 1 from its first step on, whatever it was before."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.div_(p.norm())


class Yogi(Optimizer):
    """With a first moment that is not 0 at the start."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                first, second = self.state[p].setdefault("moments", [torch.full_like(p, 1e-6) for _ in range(2)])
                first.lerp_(p.grad, 0.1)
                second.addcmul_((p.grad.square() - second).sign(), p.grad.square(), value=0.001)
                p.addcdiv_(first, second.abs().sqrt().add_(1e-3), value=-group["lr"])


class Shrinking(SGD):
    """A decay under another name."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.999)


class Slow(SGD):
    """Begins to move at its sixth step."""

    taken = 0

    def step(self, closure=None):
        self.taken += 1
        return None if self.taken <= 5 else super().step(closure)


class Delayed(SGD):
    """Uses the gradient of the step before."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                old, self.state[p]["old"] = self.state[p].get("old"), p.grad.clone()
                if old is not None:
                    p.add_(old, alpha=-group["lr"])


def model_and_prior(scale=0.5, loc=0.0):
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    return model, br.ModelPrior(model, {"*": br.Gaussian(scale, loc=loc)})


def backward(model):
    model.zero_grad()
    loss = 0.5 * (model(X) - Y).square().mean()
    loss.backward()
    return loss


def solution(precision):
    """Return the MAP of mean ½(y − xw)² + s·precision/2·w²."""
    return torch.linalg.solve(X.T @ X / 40 + torch.eye(4, dtype=torch.float64) * precision / 40, X.T @ Y / 40).T


@pytest.mark.parametrize(
    ("build", "matrix", "vector"),
    [
        (InHook, "lost", "lost"),
        (lambda p: InHook(p, keep=False), "lost", "lost"),
        (InBackward, "lost", "lost"),
        (Ivon, "unknown", "unknown"),
        (on_sphere(SGD), "held", "arrives"),
        (on_sphere(Adam), "held", "arrives"),
        (on_sphere(Adam, rows=True), "held", "arrives"),
        (lambda p: OnUnitSphere(p, lr=0.05), "held", "held"),
        (Yogi, "arrives", "arrives"),
        (Slow, "arrives", "arrives"),
        (Delayed, "arrives", "arrives"),
        (lambda p: SGD(p, lr=1e-9), "arrives", "arrives"),
    ],
)
def test_the_toy_tells_what_becomes_of_a_pull(build, matrix, vector):
    state = torch.random.get_rng_state()
    assert arrival(build) == {"matrix": matrix, "vector": vector}
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("make", [InHook, lambda p: InHook(p, keep=False), InBackward])
def test_gradients_that_are_taken_before_the_step_are_refused_and_the_loss_is_the_way_on(make):
    model, prior = model_and_prior()
    optimizer = make(list(model.parameters()))
    with pytest.raises(br.UnsupportedError, match=r"takes its gradients before step\(\).*route='loss'"):
        br.attach(optimizer, prior, num_data=40)
    handle = br.attach(optimizer, prior, num_data=40, route="loss")
    for _ in range(400):
        (0.5 * (model(X) - Y).square().mean() + handle.penalty()).backward()
        optimizer.step()
        model.zero_grad()
    torch.testing.assert_close(model.weight.detach(), solution(4.0), rtol=1e-6, atol=1e-8)


def test_ivon_is_noticed_at_its_first_step_and_the_error_is_the_way_on():
    model, prior = model_and_prior()
    optimizer = Ivon(model.parameters())
    handle = br.attach(optimizer, prior, num_data=40)

    def take(apply):
        with optimizer.sampled_params(train=True):
            backward(model)
            if apply:
                handle.apply_()
        optimizer.step()

    with pytest.raises(br.UnsupportedError, match=r"\.grad was not looked at.*handle.apply_\(\).*sampled_params"):
        take(apply=False)
    handle.remove()
    handle = br.attach(optimizer, prior, num_data=40, before_clip=True)
    for _ in range(400):
        take(apply=True)
    torch.testing.assert_close(model.weight.detach(), solution(4.0), rtol=1e-6, atol=1e-8)


def test_apply_in_the_wrong_place_is_noticed():
    model, prior = model_and_prior()
    optimizer = Ivon(model.parameters())
    handle = br.attach(optimizer, prior, num_data=40, before_clip=True)
    with optimizer.sampled_params(train=True):
        backward(model)
    handle.apply_()
    with pytest.raises(br.UnsupportedError, match=r"\.grad was not looked at"):
        optimizer.step()


def test_weights_that_move_without_gradients_at_the_step_are_noticed():
    model, prior = model_and_prior()
    optimizer = Only(list(model.parameters()), model)
    br.attach(optimizer, prior, num_data=40)
    for _ in range(3):
        backward(model)
        optimizer.step()
    backward(model)
    with pytest.raises(br.UnsupportedError, match=r"the weights move and have no \.grad at the step"):
        optimizer.step()


@pytest.mark.parametrize("make", [Delayed, Slow, lambda p, lr: Yogi(p, lr=lr), on_sphere(SGD)])
def test_watching_changes_nothing(make, monkeypatch):
    """With the toy out of order every first step is watched; the weights go where they go unwatched."""
    ends = []
    unknown = {"matrix": "unknown", "vector": "unknown"}
    for watch in (True, False):
        model, prior = model_and_prior(loc=torch.full((1, 4), 0.3))
        optimizer = make(model.parameters(), lr=0.05)
        with monkeypatch.context() as patch:
            if watch:
                patch.setattr("bayesreg.routes.planning.arriving.arrivals", lambda o: [unknown for _ in o.param_groups])
            handle = br.attach(optimizer, prior, num_data=40)
        (part,) = handle._parts
        assert bool(part._watches._use) == watch
        for _ in range(25):
            backward(model)
            optimizer.step()
        assert type(model.weight.grad) is torch.Tensor
        assert not part._watches._use
        ends.append(model.weight.detach().clone())
    assert torch.equal(*ends)


@pytest.mark.parametrize("base", [SGD, Adam])
def test_a_norm_that_the_optimizer_holds_refuses_a_prior_centred_at_zero(base):
    model, prior = model_and_prior()
    with pytest.raises(br.UnsupportedError, match="weight: OnSphere holds the norm of such weights fixed"):
        br.attach(on_sphere(base)(model.parameters()), prior, num_data=40)
    model, prior = model_and_prior(loc=torch.full((1, 4), 0.3))
    br.attach(on_sphere(base)(model.parameters()), prior, num_data=40)


RENORMALISED = {
    "frobenius": lambda w: w.div_(w.norm()),
    "rows": lambda w: w.div_(w.norm(dim=1, keepdim=True)),
    "orthogonal": lambda w: w.copy_(torch.linalg.qr(w)[0]),
}


def _square(optimizer, after=None, steps=120):
    torch.manual_seed(0)
    model = nn.Linear(6, 6, bias=False)
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    made = optimizer(prior.param_groups())
    br.attach(made, prior, num_data=100)
    x = torch.randn(100, 6)
    for _ in range(steps):
        made.zero_grad()
        (model(x).roll(1, 0) - x).square().mean().backward()
        made.step()
        if after is not None:
            with torch.no_grad():
                after(model.weight)


@pytest.mark.parametrize("how", RENORMALISED)
@pytest.mark.parametrize("make", [lambda g: SGD(g, lr=0.3), lambda g: Adam(g, lr=0.01)])
def test_a_norm_that_the_loop_holds_is_said_once(make, how):
    with pytest.warns(br.HeldNormWarning, match="weight: the norm stays the same to the last digit") as said:
        _square(make, RENORMALISED[how])
    assert [one.filename for one in said] == [__file__]


@pytest.mark.parametrize(
    "after",
    [None, lambda w: w.clamp_(-0.9, 0.9), lambda w: w.mul_(w.norm().clamp(max=50.0) / w.norm()), lambda w: w.copy_(w)],
)
@pytest.mark.parametrize("make", [lambda g: SGD(g, lr=0.3, momentum=0.9), lambda g: Adam(g, lr=0.01)])
def test_weights_that_only_stay_near_their_norm_are_not_spoken_of(make, after):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _square(make, after)


def test_weights_that_do_not_move_yet_are_not_spoken_of():
    model = nn.Linear(6, 6, bias=False)
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = SGD(prior.param_groups(), lr=0.0)
    br.attach(optimizer, prior, num_data=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(40):
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            optimizer.step()


def test_behind_a_normalisation_the_norm_settles_and_is_not_held():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 1))
    prior = br.ModelPrior(model, br.Gaussian(0.1))
    optimizer = Adam(prior.param_groups(), lr=0.01)
    br.attach(optimizer, prior, num_data=50)
    x, y = torch.randn(50, 6), torch.randn(50, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(350):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()


def test_a_first_moment_that_is_not_zero_is_no_hidden_decay():
    assert not decay_rule(Yogi([nn.Parameter(torch.ones(2))])).hidden
    assert decay_rule(Shrinking([nn.Parameter(torch.ones(2))], lr=0.1)).hidden
    model, prior = model_and_prior()
    with pytest.raises(br.InvalidArgumentError, match="a decay under another name"):
        br.attach(Shrinking(model.parameters(), lr=0.1), prior, num_data=40)


class WithoutRate(Optimizer):
    """Its groups have no "lr", as those of A2Grad."""

    def __init__(self, params, beta=10.0):
        super().__init__(params, {"beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad / group["beta"])


def test_groups_without_a_learning_rate_work_and_what_needs_one_says_so():
    model, prior = model_and_prior()
    optimizer = WithoutRate(model.parameters())
    with pytest.raises(br.UnsupportedError, match="the groups of WithoutRate have no 'lr'"):
        br.attach(optimizer, prior, num_data=40, route="decoupled")
    br.attach(optimizer, prior, num_data=40)
    for _ in range(400):
        backward(model)
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), solution(4.0), rtol=1e-6, atol=1e-8)


def test_a_toy_is_tried_once_for_each_kind_of_group():
    built = []

    class Counted(Delayed):
        def __init__(self, *args, **kwargs):
            built.append(1)
            super().__init__(*args, **kwargs)

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.5)})
    optimizer = Counted(
        [{"params": layer.parameters(), "lr": 0.1 + index} for index, layer in enumerate(model)], lr=0.1
    )
    handle = br.attach(optimizer, prior, num_data=40)
    once = len(built)
    handle.remove()
    br.attach(optimizer, prior, num_data=40)
    assert len(built) - once < once  # what the toy told is kept; what decay means is looked at again

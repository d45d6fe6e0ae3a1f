"""A clip between backward and step is noticed, and nothing else is taken for one."""

from __future__ import annotations

import copy
import gc
import pickle
import types
import warnings
import weakref

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.routes.watches.freshness import Freshness

LEVEL = 0.05


def net(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1)).to(dtype)


class Run:
    """A loop of twenty-six steps on fresh batches, with something done to the gradients on the way."""

    def __init__(self, *, dtype=torch.float32, optimizer=torch.optim.SGD, fused=None, several=False, before_clip=False):
        self.model = net(dtype)
        self.dtype = dtype
        prior = br.ModelPrior(self.model, br.Gaussian(0.5))
        if several:
            self.optimizers = [
                optimizer(self.model[0].parameters(), lr=0.01),
                optimizer(self.model[2:].parameters(), lr=0.01),
            ]
        else:
            self.optimizers = [optimizer(self.model.parameters(), lr=0.01, **({"fused": True} if fused else {}))]
        self.handle = br.attach(self.optimizers, prior, num_data=100, before_clip=before_clip)
        self.generator = torch.Generator().manual_seed(1)

    def batch(self):
        x = torch.randn(16, 5, generator=self.generator)
        return x.to(self.dtype), (3.0 * x.sum(1, keepdim=True) + torch.randn(16, 1, generator=self.generator)).to(
            self.dtype
        )

    def backward(self, scale=1.0):
        x, y = self.batch()
        loss = (self.model(x) - y).square().mean() * scale
        loss.backward()
        return loss

    def zero(self):
        self.model.zero_grad()

    def step(self):
        for one in self.optimizers:
            one.step()

    def go(self, after, *, micro=1, steps=26):
        for _ in range(steps):
            self.zero()
            for _ in range(micro):
                self.backward(1.0 / micro)
            after(self)
            self.step()


def clip_norm(run, **how):
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), LEVEL, **how)


def out_of_place(run):
    total = torch.nn.utils.get_total_norm([p.grad for p in run.model.parameters()])
    for p in run.model.parameters():
        p.grad = p.grad * min(1.0, LEVEL / float(total))


def by_data(run):
    total = float(torch.nn.utils.get_total_norm([p.grad for p in run.model.parameters()]))
    for p in run.model.parameters():
        p.grad.data.mul_(min(1.0, LEVEL / total))


def matrices_only(run):
    torch.nn.utils.clip_grad_norm_([p for p in run.model.parameters() if p.ndim > 1], LEVEL)


CLIPS = {
    "norm": (clip_norm, {}), "not foreach": (lambda run: clip_norm(run, foreach=False), {}),
    "largest element": (lambda run: clip_norm(run, norm_type=float("inf")), {}), "out of place": (out_of_place, {}),
    "through .data": (by_data, {}), "matrices only": (matrices_only, {}), "accumulated": (clip_norm, {"micro": 3}),
    "values": (lambda run: torch.nn.utils.clip_grad_value_(run.model.parameters(), LEVEL), {}),
}  # fmt: skip


@pytest.mark.parametrize("how", CLIPS)
def test_a_clip_is_said_once_with_its_level(how):
    after, options = CLIPS[how]
    run = Run()
    with pytest.warns(br.ClipAfterPriorWarning, match="clip-after-prior: gradients are clipped to") as said:
        run.go(after, **options)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert "0.05" in str(said[0].message) or "0.0499" in str(said[0].message)
    assert "before_clip=True" in str(said[0].message)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": torch.optim.Adam}, {"optimizer": torch.optim.AdamW}, {"fused": True}, {"dtype": torch.bfloat16},
        {"dtype": torch.float64}, {"several": True},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::bayesreg.RoundingWarning")
def test_with_any_optimizer_dtype_and_several_under_one_clip(settings):
    if settings.get("optimizer") is torch.optim.AdamW:
        settings = {"optimizer": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.0)}
    with pytest.warns(br.ClipAfterPriorWarning, match="gradients are clipped to a norm of 0.0"):
        Run(**settings).go(clip_norm)


def test_in_a_closure_and_by_a_scaler():
    run = Run()
    (optimizer,) = run.optimizers

    def closure():
        run.zero()
        loss = run.backward()
        clip_norm(run)
        return loss

    def closures():
        for _ in range(6):
            optimizer.step(closure)

    with pytest.warns(br.ClipAfterPriorWarning, match=r"a norm of 0\.05"):
        closures()
    run = Run()
    (optimizer,) = run.optimizers
    scaler = torch.amp.GradScaler("cpu", init_scale=1000.0)

    def scaled():
        for _ in range(8):
            run.zero()
            x, y = run.batch()
            scaler.scale((run.model(x) - y).square().mean()).backward()
            scaler.unscale_(optimizer)
            clip_norm(run)
            scaler.step(optimizer)
            scaler.update()

    with pytest.warns(br.ClipAfterPriorWarning, match=r"a norm of 0\.05"):
        scaled()


def noisy(run):
    for p in run.model.parameters():
        p.grad.add_(0.01 * torch.randn(p.shape, generator=run.generator))


def masked(run):
    run.model[0].weight.grad[:3] = 0.0


def centred(run):
    run.model[0].weight.grad.sub_(run.model[0].weight.grad.mean(1, keepdim=True))


def tokens(run):
    count = int(torch.randint(3, 90, (), generator=run.generator))
    for p in run.model.parameters():
        p.grad.div_(count)


def reduced(run):
    """What an all-reduce after the hooks does: the mean with another process's gradients."""
    for p in run.model.parameters():
        p.grad.add_(p.grad.norm() * torch.randn(p.shape, generator=run.generator)).div_(2)


def constant(run):
    for p in run.model.parameters():
        p.grad.div_(3)


QUIET = {
    "nothing": lambda run: None, "a clip that never binds": lambda run: clip_norm_at(run, 1e6), "noise": noisy,
    "all-reduce": reduced,
    "a mask": masked, "centralised": centred, "a mean over tokens": tokens, "a constant factor": constant,
    "a half": lambda run: [p.grad.mul_(0.5) for p in run.model.parameters()],
    "no NaN": lambda run: [torch.nan_to_num_(p.grad) for p in run.model.parameters()],
    "looked at": lambda run: [p.grad.norm() for p in run.model.parameters()],
}  # fmt: skip


def clip_norm_at(run, level):
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), level)


@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("how", QUIET)
def test_nothing_else_is_taken_for_a_clip(how, micro):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Run().go(QUIET[how], micro=micro)


@pytest.mark.parametrize("scale", [65536.0, 1000.0])
@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_is_not_taken_for_a_clip(scale, fused):
    run = Run(fused=fused)
    (optimizer,) = run.optimizers
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(26):
            run.zero()
            x, y = run.batch()
            scaler.scale((run.model(x) - y).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()


@pytest.mark.parametrize("hook", [lambda g: g * 0.37, lambda g: g.clamp(-0.01, 0.01)])
def test_hooks_of_others_before_the_gradient_is_made_are_theirs(hook):
    run = Run()
    for p in run.model.parameters():
        p.register_hook(hook)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.go(lambda run: None)


def test_gradients_set_by_hand_and_line_searches_are_quiet():
    run = Run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(26):
            for p in run.model.parameters():
                p.grad = torch.randn_like(p)
            run.step()
    run = Run(optimizer=torch.optim.LBFGS)
    (optimizer,) = run.optimizers
    x, y = run.batch()

    def closure():
        optimizer.zero_grad()
        loss = (run.model(x) - y).square().mean()
        loss.backward()
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            optimizer.step(closure)


def test_an_optimizer_whose_parameters_were_all_frozen_does_no_harm():
    model = net()
    model[0].requires_grad_(False)
    optimizers = [torch.optim.SGD(model[2:].parameters(), lr=0.01), torch.optim.SGD(model[0].parameters(), lr=0.01)]
    br.attach(optimizers, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100)
    for step in range(8):
        model[0].requires_grad_(step > 2)
        model.zero_grad()
        model(torch.randn(8, 5)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


def test_it_is_turned_off_by_name_and_by_doing_it_right():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="clip-after-prior")
        Run().go(clip_norm)
    run = Run(before_clip=True)

    def right(run):
        run.handle.apply_()
        clip_norm(run)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.go(right)


@pytest.mark.parametrize("removed", [False, True])
def test_it_ends_and_leaves_no_hooks_and_keeps_nothing_alive(removed):
    run = Run()
    run.go(lambda run: None, steps=3)
    assert any(p._post_accumulate_grad_hooks for p in run.model.parameters())
    if removed:
        run.handle.remove()
    else:
        run.go(lambda run: None, steps=22)
    assert not any(p._post_accumulate_grad_hooks for p in run.model.parameters())
    run = Run()
    kept = weakref.ref(run.model[0].weight)
    del run
    gc.collect()
    assert kept() is None


def test_a_model_that_is_watched_can_be_copied_and_pickled():
    run = Run()
    run.go(lambda run: None, steps=2)
    twin = copy.deepcopy(run.model)
    again = pickle.loads(pickle.dumps(run.model))
    for other in (twin, again):
        assert not any(p._post_accumulate_grad_hooks for p in other.parameters())


# -- steps that failed, or are repeated ----------------------------------------------------------------------


def by_loss(make, steps, scale=0.5):
    """Return the weights of a loop with the penalty in its loss, gradients made `steps` times, `again` steps each."""
    model = net(torch.float64)
    optimizer = make(model.parameters())
    for again in steps:
        model.zero_grad()
        loss = model(torch.ones(3, 5, dtype=torch.float64)).square().mean()
        for p in model.parameters():
            if p.ndim == 2:
                loss = loss + 0.5 * p.square().sum() / (100 * scale**2)
        loss.backward()
        for _ in range(again):
            optimizer.step()
    return [p.detach() for p in model.parameters()]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.0)


@pytest.mark.parametrize(("before_clip", "applied_again"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("make", [sgd, adamw])
def test_a_step_that_failed_and_is_tried_again_has_the_prior_once(make, before_clip, applied_again):
    model = net(torch.float64)
    optimizer = make(model.parameters())
    handle = br.attach(
        optimizer, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100, before_clip=before_clip, route="gradient"
    )
    failing = {"now": False}

    def fail(*_):
        if failing["now"]:
            raise ConnectionError("out of memory")

    optimizer.register_step_pre_hook(fail)
    for again in (False, True, True):
        model.zero_grad()
        model(torch.ones(3, 5, dtype=torch.float64)).square().mean().backward()
        if before_clip:
            handle.apply_()
        if again:
            failing["now"] = True
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    optimizer.step()
                if applied_again:
                    handle.apply_()
            failing["now"] = False
        optimizer.step()
    for ours, theirs in zip(model.parameters(), by_loss(make, [1, 1, 1]), strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-12, atol=1e-12)


def test_a_parameter_without_a_gradient_does_not_hide_a_retry():
    model = nn.ModuleDict({"used": nn.Linear(3, 3, bias=False), "unused": nn.Linear(1, 1, bias=False)}).double()
    optimizer = sgd(model.parameters())
    br.attach(optimizer, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100, route="gradient")
    model["used"].weight.grad = torch.zeros_like(model["used"].weight)
    before = model["used"].weight.detach().clone()

    def fail(*_):
        raise ConnectionError

    hook = optimizer.register_step_pre_hook(fail)
    with pytest.raises(ConnectionError):
        optimizer.step()
    hook.remove()
    optimizer.step()
    torch.testing.assert_close(model["used"].weight.detach(), before * (1 - 0.1 * 0.04), rtol=1e-12, atol=0)


def test_a_step_that_failed_is_forgotten_when_gradients_are_made_afresh():
    model = net(torch.float64)
    optimizer = sgd(model.parameters())
    br.attach(optimizer, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100, route="gradient")
    failing = {"now": True}

    def fail(*_):
        if failing["now"]:
            raise ConnectionError

    optimizer.register_step_pre_hook(fail)
    for set_to_none in (True, False):
        failing["now"] = True
        optimizer.zero_grad(set_to_none=set_to_none)
        model(torch.ones(3, 5, dtype=torch.float64)).square().mean().backward()
        with pytest.raises(ConnectionError):
            optimizer.step()
        failing["now"] = False
        optimizer.zero_grad(set_to_none=set_to_none)
        model(torch.ones(3, 5, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), by_loss(sgd, [1, 1]), strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [sgd, adamw])
def test_two_steps_on_one_gradient_are_those_of_the_penalty_in_the_loss(make):
    model = net(torch.float64)
    optimizer = make(model.parameters())
    br.attach(optimizer, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100, route="gradient")
    for again in (2, 1, 3):
        model.zero_grad()
        model(torch.ones(3, 5, dtype=torch.float64)).square().mean().backward()
        for _ in range(again):
            optimizer.step()
    for ours, theirs in zip(model.parameters(), by_loss(make, [2, 1, 3]), strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [sgd, adamw])
def test_a_loop_that_never_zeroes_its_gradients_is_that_of_the_penalty_in_the_loss(make):
    ends = []
    for attached in (True, False):
        model = net(torch.float64)
        optimizer = make(model.parameters())
        prior = br.ModelPrior(model, br.Gaussian(0.5))
        if attached:
            br.attach(optimizer, prior, num_data=100, route="gradient")
        for _ in range(5):
            loss = model(torch.ones(3, 5, dtype=torch.float64)).square().mean()
            (loss if attached else loss + prior.penalty() / 100).backward()
            optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_gradients_written_through_data_are_fresh():
    model = net(torch.float64)
    optimizer = sgd(model.parameters())
    br.attach(optimizer, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100, route="gradient")
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = model[0].weight.detach().clone()
    for _ in range(2):
        for p in model.parameters():
            p.grad.data.zero_()
        optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), before * (1 - 0.1 * 0.04) ** 2, rtol=1e-12, atol=0)


# -- Lightning's manual optimization: a closure that makes no gradients --------------------------------------------


@pytest.mark.parametrize("family", [br.Gaussian(0.5), br.Laplace(0.5), br.Gaussian(0.5, loc=0.3)])
def test_apply_may_come_before_a_step_with_a_closure_that_makes_no_gradients(family):
    ends = []
    for closure in (None, lambda: None):
        model = net(torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        handle = br.attach(optimizer, br.ModelPrior(model, family), num_data=100, before_clip=True)
        for _ in range(5):
            model.zero_grad()
            model(torch.ones(3, 5, dtype=torch.float64)).square().mean().backward()
            handle.apply_()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            handle.clipped(norm, 0.1)
            optimizer.step() if closure is None else optimizer.step(closure)
        ends.append([p.detach() for p in model.parameters()])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def test_apply_before_a_closure_that_makes_gradients_is_refused():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = br.attach(optimizer, br.ModelPrior(model, br.Gaussian(0.5)), num_data=100, before_clip=True)

    def backward():
        model.zero_grad()
        model(torch.ones(3, 5)).square().mean().backward()

    backward()
    handle.apply_()
    with pytest.raises(br.InvalidArgumentError, match=r"apply_\(\) was not called before this step"):
        optimizer.step(backward)

    def both():
        backward()
        handle.apply_()

    backward()
    handle.apply_()
    with pytest.raises(br.InvalidArgumentError, match=r"before step\(closure\), and in the closure again"):
        optimizer.step(both)
    optimizer.step(both)


def test_a_gradient_that_changed_where_nobody_looks_is_fresh():
    """A backward that leaves the first elements as they are, as of rows that no example uses."""
    parameter = nn.Parameter(torch.zeros(100))
    plan = types.SimpleNamespace(on=lambda *_: [types.SimpleNamespace(parameter=parameter)])
    parameter.grad = torch.zeros(100)
    watch = Freshness([plan])
    watch.note()
    assert watch.is_stale()
    parameter.grad[50:] += 1.0
    assert not watch.is_stale()


@pytest.mark.parametrize("turning", [True, False])
def test_gradients_of_one_length_that_are_scaled_are_not_clipped(turning):
    """A constant factor on gradients that turn; a factor of its own each step on one that does not."""
    model = nn.Linear(2, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    br.attach(optimizer, br.ModelPrior(model, {"*": br.Laplace(1.0)}), num_data=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(60):
            angle = torch.tensor(0.3 * step if turning else 0.7, dtype=torch.float64)
            factor = 3.0 if turning else 3.0 + step % 7
            optimizer.zero_grad()
            (factor * model(torch.stack([angle.cos(), angle.sin()])).sum()).backward()
            model.weight.grad.div_(factor)
            optimizer.step()

"""Half precision: a pull that is lost is said for every family, and arrives by float32 masters."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import nn

import bayesreg as br
from tests.sampling import cells

FAMILIES = {
    "gaussian": lambda: br.Gaussian(0.1),
    "one std each": lambda: br.Gaussian(torch.full((40, 40), 0.1)),
    "centred": lambda: br.Gaussian(0.1, loc=0.01),
    "student": lambda: br.StudentT(4.0, 0.1),
    "cauchy": lambda: br.Cauchy(0.1),
    "laplace": lambda: br.Laplace(0.1),
    "elastic net": lambda: br.ElasticNet(10.0, 100.0),
    "mixture": lambda: br.ScaleMixture(torch.tensor([0.5, 0.5]), torch.tensor([0.05, 1.0])),
    "group": lambda: br.GroupLaplace(10.0, group="row"),
    "logistic": lambda: br.Logistic(0.1),
    "hierarchical": lambda: br.HierarchicalGaussian(br.hyperpriors.InverseGamma(2.0, 0.02)),
    "r2d2": lambda: br.R2D2(1.5, 0.5, 0.1),
}
N = 50_000


def linear(dtype=torch.bfloat16):
    torch.manual_seed(0)
    model = nn.Linear(40, 40, bias=False)
    nn.init.normal_(model.weight, std=0.3)
    return model.to(torch.bfloat16).to(dtype)


def run(prior, make, *, steps=10, dtype=torch.bfloat16, grad=0.0, **how):
    """Return the weights after steps with gradients that are the same in every dtype."""
    model = linear(dtype)
    whole = br.ModelPrior(model, {"*": prior})
    optimizer = make(whole.param_groups())
    br.attach(optimizer, whole, num_data=N, **how)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        drawn = grad * torch.randn(40, 40, generator=generator)
        model.weight.grad = drawn.to(torch.bfloat16).to(dtype)
        optimizer.step()
    return model, optimizer


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1)


def adam(groups):
    return torch.optim.Adam(groups, lr=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_that_its_pull_is_lost(family):
    with pytest.warns(br.RoundingWarning, match="weight: ") as said:
        run(FAMILIES[family](), sgd)
    assert [one.filename for one in said] == [__file__]


@pytest.mark.parametrize("family", ["gaussian", "student", "one std each"])
def test_adaptive_optimizers_lose_it_in_the_gradients(family):
    with pytest.warns(br.RoundingWarning, match=r"\d+% of the prior's pull .* is lost to rounding"):
        run(FAMILIES[family](), adam, grad=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(FAMILIES[family](), adam, grad=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_and_strong_pulls_are_not_spoken_of(family):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(FAMILIES[family](), sgd, dtype=torch.float32)
        run(FAMILIES[family]().times(3e3) or br.Flat(), sgd)


def test_while_the_rate_rises_nothing_is_said():
    model = linear()
    prior = br.ModelPrior(model, {"*": br.StudentT(4.0, 0.1)})
    optimizer = sgd(prior.param_groups())
    br.attach(optimizer, prior, num_data=N)

    def steps(rates):
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            model.weight.grad = torch.zeros_like(model.weight)
            optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps([0.01 * step for step in range(1, 11)])
    with pytest.warns(br.RoundingWarning):
        steps([0.1] * 4)


def test_a_pull_that_float16_cannot_hold_is_refused_before_it_makes_nan():
    model = linear(torch.float16)
    prior = br.ModelPrior(model, {"*": br.Gaussian(1e-4, loc=0.5)})
    optimizer = torch.optim.AdamW(prior.param_groups(), lr=1e-3, weight_decay=0.0)
    br.attach(optimizer, prior, num_data=100)
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    with pytest.raises(br.UnsupportedError, match=r"more than float16 can hold \(6.55e\+04\).*float32_master"):
        optimizer.step()
    assert torch.equal(model.weight, before)


# -- float32 masters ------------------------------------------------------------------------------------------------

MAKES = {
    "SGD": lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9),
    "Adam": adam,
    "AdamW, fused": lambda g: torch.optim.AdamW(g, lr=1e-3, weight_decay=0.0, fused=True),
    "AdamW, one by one": lambda g: torch.optim.AdamW(g, lr=1e-3, weight_decay=0.0, foreach=False),
}


@pytest.mark.parametrize(
    ("name", "family"), cells(MAKES.keys(), FAMILIES.keys(), keep=lambda o, f: o == 1 or f in (0, 3, 5))
)
@pytest.mark.filterwarnings("error")
def test_masters_go_where_a_float32_model_goes(name, family):
    make = MAKES[name]
    if not FAMILIES[family]().traits.smooth and name not in ("SGD", "Adam"):
        pytest.skip("proximal steps are covered by two optimizers")
    exact, _ = run(FAMILIES[family](), make, dtype=torch.float32, steps=50, grad=0.01)
    model, optimizer = run(FAMILIES[family](), make, steps=50, grad=0.01, float32_master=True)
    assert model.weight.dtype is torch.bfloat16
    assert torch.equal(model.weight, exact.weight.to(torch.bfloat16))
    assert all(held.dtype is torch.float32 for held in optimizer.state[model.weight].values() if held.ndim)


def test_the_weights_stay_where_they_are_in_memory_and_may_be_loaded_meanwhile():
    model = linear()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.1)})
    optimizer = adam(prior.param_groups())
    handle = br.attach(optimizer, prior, num_data=N, float32_master=True)
    place, start = model.weight.data_ptr(), model.weight.detach().clone()

    def step():
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()

    for _ in range(5):
        step()
    assert model.weight.data_ptr() == place
    model.load_state_dict({"weight": start + 1.0})
    step()
    assert bool(((model.weight - start).float() > 0.9).all())
    handle.remove()
    assert model.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("again", [False, True])
def test_a_resumed_run_with_masters_continues_bit_for_bit(again):
    def prepared():
        model = linear()
        prior = br.ModelPrior(model, {"*": br.StudentT(4.0, 0.1)})
        optimizer = adam(prior.param_groups())
        br.attach(optimizer, prior, num_data=N, float32_master=True)
        return model, optimizer

    def go(model, optimizer, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            model.weight.grad = (0.01 * torch.randn(40, 40, generator=generator)).to(torch.bfloat16)
            optimizer.step()

    model, optimizer = prepared()
    go(model, optimizer, 7, 1)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    go(model, optimizer, 7, 2)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed, other = prepared()
    resumed.load_state_dict(weights)
    other.load_state_dict(state)
    if again:
        other.load_state_dict(copy.deepcopy(other.state_dict()))
    go(resumed, other, 7, 2)
    assert torch.equal(resumed.weight, model.weight)
    for key, held in optimizer.state[model.weight].items():
        assert torch.equal(held, other.state[resumed.weight][key])


def test_masters_in_closures_and_after_a_step_that_failed():
    ends = []
    for closure in (False, True):
        model = linear()
        prior = br.ModelPrior(model, {"*": br.Gaussian(0.1)})
        optimizer = adam(prior.param_groups())
        br.attach(optimizer, prior, num_data=N, float32_master=True)
        failing = {"now": False}

        def fail(*_, failing=failing):
            if failing["now"]:
                raise ConnectionError

        optimizer.register_step_pre_hook(fail)

        def backward(model=model):
            assert model.weight.dtype is torch.bfloat16
            model.zero_grad()
            model(torch.ones(2, 40, dtype=torch.bfloat16)).square().mean().backward()

        for _ in range(4):
            if closure:
                optimizer.step(backward)
                continue
            backward()
            failing["now"] = True
            with pytest.raises(ConnectionError):
                optimizer.step()
            failing["now"] = False
            optimizer.step()
        ends.append(model.weight.detach())
    assert torch.equal(*ends)


class Twice(torch.optim.SGD):
    """Evaluates its closure twice, the second time elsewhere, as SAM does."""

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            closure()
        weights = [p for group in self.param_groups for p in group["params"]]
        for p in weights:
            p.add_(p.grad, alpha=0.5)
        away = [0.5 * p.grad for p in weights]
        with torch.enable_grad():
            closure()
        for p, there in zip(weights, away, strict=True):
            p.sub_(there.to(p.dtype))
        super().step()


def test_masters_leave_the_model_in_its_own_dtype_at_every_evaluation():
    model = linear()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.1)})
    optimizer = Twice(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=N, float32_master=True)
    seen = []

    def backward():
        seen.append(model.weight.dtype)
        model.zero_grad()
        model(torch.ones(2, 40, dtype=torch.bfloat16)).square().mean().backward()

    for _ in range(3):
        optimizer.step(backward)
    assert seen == [torch.bfloat16] * 6
    assert model.weight.dtype is torch.bfloat16


def test_masters_take_over_from_state_in_half_precision():
    model, optimizer = run(br.Gaussian(0.1), adam, grad=1e-3, steps=2)
    assert optimizer.state[model.weight]["exp_avg"].dtype is torch.bfloat16
    br.detach(optimizer)
    br.attach(optimizer, br.ModelPrior(model, {"*": br.Gaussian(0.1)}), num_data=N, float32_master=True)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert optimizer.state[model.weight]["exp_avg"].dtype is torch.float32


def test_masters_see_what_a_loop_does_through_data():
    model, optimizer = run(br.Gaussian(0.1), sgd, steps=2, float32_master=True)
    model.weight.data.clamp_(-0.01, 0.01)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight.abs().max().item() <= 0.011


def test_masters_leave_the_model_in_its_own_dtype_where_a_check_after_the_step_raises():
    model = linear()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.1)})
    optimizer = sgd(prior.param_groups())
    br.attach(optimizer, prior, num_data=N, float32_master=True)
    with pytest.raises(br.UnsupportedError, match="never called its closure"):
        _deaf(optimizer)
    assert model.weight.dtype is torch.bfloat16


def _deaf(optimizer):
    """Take a step whose closure is never called."""
    for hook in list(optimizer._optimizer_step_pre_hooks.values()):
        hook(optimizer, (optimizer, lambda: None), {})
    for hook in list(optimizer._optimizer_step_post_hooks.values()):
        hook(optimizer, (optimizer,), {})


@pytest.mark.filterwarnings("error")
def test_zeros_that_stay_under_masters_are_not_taken_for_lost():
    model = linear()
    prior = br.ModelPrior(model, {"*": br.Laplace(0.001, loc=0.1)})
    optimizer = torch.optim.SGD(prior.param_groups(), lr=1.0)
    br.attach(optimizer, prior, num_data=10, float32_master=True)
    for _ in range(12):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.filterwarnings("ignore::bayesreg.RoundingWarning")
def test_parameters_without_elements_do_no_harm(dtype):
    model = nn.ParameterDict({"empty": nn.Parameter(torch.empty(0, 3)), "full": nn.Parameter(torch.ones(3, 3))}).to(
        dtype
    )
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.5)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=10, route="gradient")
    for _ in range(8):
        for parameter in model.values():
            parameter.grad = torch.full_like(parameter, 0.1)
        optimizer.step()


def test_a_dry_run_on_the_meta_device_goes_through():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1)).to("meta")
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    optimizer = torch.optim.Adam(prior.param_groups())
    br.attach(optimizer, prior, num_data=10)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.ones(2, 4, device="meta")).sum().backward()
        optimizer.step()


def test_what_masters_cannot_do_is_refused():
    model = linear()
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.1)})
    with pytest.raises(br.UnsupportedError, match="float32_master: with before_clip=True"):
        br.attach(sgd(prior.param_groups()), prior, num_data=N, before_clip=True, float32_master=True)
    with pytest.raises(br.UnsupportedError, match="float32_master: LBFGS"):
        br.attach(torch.optim.LBFGS(model.parameters()), prior, num_data=N, float32_master=True)

"""attach: every optimizer against the autograd penalty, native decay bit for bit, proximal fixed points, refusals."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from bayesreg.optimizers import decay_rule
from tests.test_optimizers import ALL

N = 60
STEPS = 50


def data():
    g = torch.Generator().manual_seed(5)
    X = torch.randn(N, 6, generator=g, dtype=torch.float64)
    return X, torch.randint(0, 3, (N,), generator=g)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def optimizer_of(name, groups, **keywords):
    cls = getattr(torch.optim, name)
    signature = inspect.signature(cls.__init__).parameters
    if "weight_decay" in signature and name not in ("SGD",):
        keywords.setdefault("weight_decay", 0.0)
    if name == "ASGD":
        keywords["lambd"] = 0.0
    return cls(groups, lr=0.02, **keywords)


def trained(model, optimizer, *, penalty=lambda: 0.0, steps=STEPS, before_step=lambda: None, accumulate=1):
    X, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        for part in range(accumulate):
            rows = slice(part * N // accumulate, (part + 1) * N // accumulate)
            (F.cross_entropy(model(X[rows]), y[rows]) / accumulate).backward()
        extra = penalty()
        if isinstance(extra, torch.Tensor):
            extra.backward()
        before_step()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def largest_gap(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


PRIORS = {
    "isotropic": lambda: {br.biases: br.Flat(), "*": br.Gaussian(0.3)},
    "centred": lambda: {br.biases: br.Flat(), "*": br.Gaussian.centered_at(net(seed=9), 0.3)},
    "diagonal": lambda: {"0.weight": br.Gaussian(torch.rand(6, dtype=torch.float64) + 0.2), "*": br.Gaussian(0.5)},
    "student-t": lambda: {"*": br.FromDistribution(torch.distributions.StudentT(torch.tensor(3.0).double(), 0.0, 0.2))},
    "mixed": lambda: {"0.*": br.Gaussian.centered_at(net(seed=9), 0.2, extra="ignore"), "*": br.Gaussian(0.7, loc=0.1)},
}
SMOOTH = [n for n in ALL if n not in ("LBFGS", "SparseAdam", "Muon")]


@pytest.mark.parametrize("prior_name", PRIORS)
@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("grouped", [True, False])
def test_every_optimizer_follows_the_autograd_penalty(name, prior_name, grouped):
    """Invariant 2: after 50 steps in float64 the weights are those of the loop with the penalty in the loss."""
    one, two = net(), net()
    torch.manual_seed(1)
    rules = PRIORS[prior_name]()
    prior, reference = br.ModelPrior(one, rules), br.ModelPrior(two, rules)
    optimizer = optimizer_of(name, prior.param_groups() if grouped else one.parameters())
    br.attach(optimizer, prior, num_data=N)
    with_penalty = optimizer_of(name, two.parameters())
    expected = trained(two, with_penalty, penalty=lambda: reference.penalty() / N)
    # Adafactor's first updates are g/|g|: where g nearly cancels, a rounding error of 1e-16 in it becomes 1e-9.
    assert largest_gap(trained(one, optimizer), expected) < (1e-8 if name == "Adafactor" else 1e-12)
    # The prior moved the weights: agreement is not that of two runs without it.
    bare = net()
    assert largest_gap(expected, trained(bare, optimizer_of(name, bare.parameters()))) > 1e-4


@pytest.mark.parametrize(
    "keywords",
    [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.8, "dampening": 0.5}, {"foreach": True},
     {"fused": True}, {"momentum": 0.9, "fused": True}],
)  # fmt: skip
@pytest.mark.parametrize("prior_name", PRIORS)
def test_every_kind_of_sgd_follows_the_autograd_penalty(keywords, prior_name):
    one, two = net(), net()
    torch.manual_seed(1)
    rules = PRIORS[prior_name]()
    prior, reference = br.ModelPrior(one, rules), br.ModelPrior(two, rules)
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05, **keywords)
    br.attach(optimizer, prior, num_data=N)
    with_penalty = torch.optim.SGD(two.parameters(), lr=0.05, **keywords)
    expected = trained(two, with_penalty, penalty=lambda: reference.penalty() / N)
    assert largest_gap(trained(one, optimizer), expected) < 1e-12


def test_accumulation_counts_the_prior_once():
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, br.Gaussian(0.3, loc=0.2)), br.ModelPrior(two, br.Gaussian(0.3, loc=0.2))
    optimizer = torch.optim.SGD(one.parameters(), lr=0.05)
    br.attach(optimizer, prior, num_data=N)
    expected = trained(two, torch.optim.SGD(two.parameters(), lr=0.05), penalty=lambda: reference.penalty() / N)
    assert largest_gap(trained(one, optimizer, accumulate=4), expected) < 1e-12


@pytest.mark.parametrize("name", [n for n in ALL if decay_rule(n).kind == "coupled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_native_route_is_torchs_weight_decay_bit_for_bit(name, dtype):
    one, two = net().to(dtype), net().to(dtype)
    prior = br.ModelPrior(one, br.Gaussian(0.3))
    optimizer = optimizer_of(name, prior.param_groups())
    handle = br.attach(optimizer, prior, num_data=N)
    assert {row[2] for row in handle.describe().rows} == {"native", "none"}
    decay = br.Gaussian(0.3).weight_decay(N)
    weights = [p for p in two.parameters() if p.ndim > 1]
    rest = [p for p in two.parameters() if p.ndim == 1]
    plain = optimizer_of(name, [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}])
    X, y = data()
    for model, opt in ((one, optimizer), (two, plain)):
        for _ in range(STEPS):
            opt.zero_grad()
            F.cross_entropy(model(X.to(dtype)), y).backward()
            opt.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_decoupled_optimizers_take_the_gradient_route():
    for name in ("AdamW", "Adafactor"):
        model = net()
        prior = br.ModelPrior(model, br.Gaussian(0.3))
        handle = br.attach(optimizer_of(name, prior.param_groups()), prior, num_data=N)
        assert {row[2] for row in handle.describe().rows} == {"gradient", "none"}


def test_maximize_still_shrinks_toward_the_centre():
    def run(maximize):
        model = net()
        prior = br.ModelPrior(model, {"0.weight": br.Gaussian(0.3, loc=0.4), "*": br.Gaussian(0.5)})
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05, momentum=0.9, maximize=maximize)
        br.attach(optimizer, prior, num_data=N)
        X, y = data()
        for _ in range(STEPS):
            optimizer.zero_grad()
            ((-1 if maximize else 1) * F.cross_entropy(model(X), y)).backward()
            optimizer.step()
        return [p.detach() for p in model.parameters()]

    assert largest_gap(run(True), run(False)) < 1e-13


def test_fused_optimizers_under_a_gradient_scaler():
    def run(scaler, **keywords):
        model = net().float()
        prior = br.ModelPrior(
            model, {"0.weight": br.Gaussian(0.3, loc=0.4), "2.weight": br.Gaussian(0.2), "*": br.Flat()}
        )
        optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05, **keywords)
        br.attach(optimizer, prior, num_data=N)
        X, y = data()
        for _ in range(10):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(X.float()), y)
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        return [p.detach() for p in model.parameters()]

    expected = run(None)
    for keywords in ({"fused": True}, {"fused": False}):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        assert largest_gap(run(scaler, **keywords), expected) < 1e-5


# -- closures ------------------------------------------------------------------------------------------


def closure_for(model, optimizer, penalty=lambda: 0.0):
    X, y = data()

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), y) + penalty()
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("rules", [PRIORS["isotropic"], PRIORS["centred"], PRIORS["student-t"]])
def test_steps_with_a_closure_follow_the_autograd_penalty(rules, by_keyword):
    """Frameworks that pass a closure to step() make the gradients inside it; a plain hook would lose the prior."""
    one, two = net(), net()
    prior, reference = br.ModelPrior(one, rules()), br.ModelPrior(two, rules())
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05, momentum=0.9)
    br.attach(optimizer, prior, num_data=N)
    plain = torch.optim.SGD(two.parameters(), lr=0.05, momentum=0.9)
    closure, with_penalty = closure_for(one, optimizer), closure_for(two, plain, lambda: reference.penalty() / N)
    for _ in range(STEPS):
        optimizer.step(**{"closure": closure}) if by_keyword else optimizer.step(closure)
        plain.step(with_penalty)
    assert largest_gap([p.detach() for p in one.parameters()], [p.detach() for p in two.parameters()]) < 1e-12


@pytest.mark.parametrize("rules", [PRIORS["isotropic"], PRIORS["centred"], PRIORS["student-t"]])
def test_lbfgs_searches_along_the_whole_objective(rules):
    model = net()
    prior = br.ModelPrior(model, rules())
    optimizer = torch.optim.LBFGS(
        model.parameters(), line_search_fn="strong_wolfe", max_iter=50, tolerance_grad=1e-10, tolerance_change=0.0
    )
    handle = br.attach(optimizer, prior, num_data=N)
    assert {row[2] for row in handle.describe().rows} <= {"gradient", "none"}
    X, y = data()
    first = F.cross_entropy(model(X), y).item() + prior.penalty().item() / N
    assert optimizer.step(closure_for(model, optimizer)).item() == pytest.approx(first, rel=1e-12)
    for _ in range(20):
        optimizer.step(closure_for(model, optimizer))
    objective = F.cross_entropy(model(X), y) + prior.penalty() / N
    for slope in torch.autograd.grad(objective, list(model.parameters())):
        assert slope.abs().max() < 1e-6


def test_a_clip_cannot_reach_into_a_closure():
    _, _, optimizer, _ = attached(before_clip=True)
    with pytest.raises(br.UnsupportedError, match=r"makes its gradients inside the step, so a clip before it clips"):
        optimizer.step(lambda: torch.zeros(()))


# -- clipping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_before_clip_keeps_the_map(name):
    one, two = net(), net()
    rules = {"0.*": br.Gaussian(0.1, loc=0.3), "*": br.Gaussian(0.1)}
    prior, reference = br.ModelPrior(one, rules), br.ModelPrior(two, rules)
    optimizer = optimizer_of(name, prior.param_groups())
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)

    def clip_one():
        handle.apply_()
        nn.utils.clip_grad_norm_(one.parameters(), 0.05)

    got = trained(one, optimizer, before_step=clip_one)
    expected = trained(
        two, optimizer_of(name, two.parameters()), penalty=lambda: reference.penalty() / N,
        before_step=lambda: nn.utils.clip_grad_norm_(two.parameters(), 0.05),
    )  # fmt: skip
    assert largest_gap(got, expected) < 1e-12
    assert all(group["weight_decay"] == 0.0 for group in optimizer.param_groups)


def test_a_step_without_apply_is_refused():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.1))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)
    trained(model, optimizer, steps=2, before_step=handle.apply_)
    with pytest.raises(br.InvalidArgumentError, match=r"handle\.apply_\(\) was not called before this step"):
        trained(model, optimizer, steps=1)
    handle.remove()
    handle = br.attach(optimizer, prior, num_data=N)
    with pytest.raises(br.InvalidArgumentError, match=r"apply_\(\) is for br\.attach\(\.\.\., before_clip=True\)"):
        handle.apply_()


# -- proximal ------------------------------------------------------------------------------------------

LASSO_N = 50
TAU = 1.0


def lasso_problem():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(LASSO_N, 8))
    y = X @ np.array([2.0, -1.0, 0.0, 0.0, 0.5, 0.0, 0.0, 1.0]) + 0.5 * rng.normal(size=LASSO_N)
    coef = Lasso(alpha=0.15, fit_intercept=False, tol=1e-15, max_iter=1_000_000).fit(X, y).coef_
    assert 0 < (coef == 0).sum() < 8
    return torch.as_tensor(X), torch.as_tensor(y), torch.as_tensor(coef)


def run_lasso(make_optimizer, steps, *, clip=None, decay_lr=None):
    X, y, coef = lasso_problem()
    model = nn.Linear(8, 1, bias=False).double()
    prior = br.ModelPrior(model, br.Laplace(br.lasso_alpha_to_laplace_scale(0.15, LASSO_N, TAU)))
    optimizer = make_optimizer(prior.param_groups())
    handle = br.attach(optimizer, prior, num_data=LASSO_N, before_clip=clip is not None)
    schedule = decay_lr(optimizer) if decay_lr else None
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * ((model(X)[:, 0] - y) ** 2).mean()).backward()
        if clip is not None:
            handle.apply_()
            handle.clipped(nn.utils.clip_grad_norm_(model.parameters(), clip), clip)
        optimizer.step()
        if schedule:
            schedule.step()
    found = model.weight.detach()[0]
    assert torch.equal(found == 0, coef == 0)
    return float((found - coef).abs().max())


@pytest.mark.parametrize(
    "keywords",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "dampening": 0.9},
     {"momentum": 0.5, "dampening": 0.3}],
)  # fmt: skip
def test_proximal_sgd_lands_on_scikit_learns_lasso(keywords):
    assert run_lasso(lambda groups: torch.optim.SGD(groups, lr=0.05, **keywords), 3000) < 1e-10


@pytest.mark.parametrize(
    "make",
    [
        lambda g: torch.optim.Adam(g, lr=0.01),
        lambda g: torch.optim.Adam(g, lr=0.01, amsgrad=True),
        lambda g: torch.optim.AdamW(g, lr=0.01, weight_decay=0.0),
        lambda g: torch.optim.RMSprop(g, lr=0.01),
        lambda g: torch.optim.RMSprop(g, lr=0.01, momentum=0.5),
        lambda g: torch.optim.Adagrad(g, lr=0.3),
        lambda g: torch.optim.Adamax(g, lr=0.01),
    ],
)
def test_proximal_steps_of_adaptive_optimizers_land_on_scikit_learns_lasso(make):
    def cooling(optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8000, eta_min=1e-5)

    assert run_lasso(make, 8000, decay_lr=cooling) < 1e-8


def test_proximal_steps_follow_the_clip():
    assert run_lasso(lambda groups: torch.optim.SGD(groups, lr=0.05), 6000, clip=0.2) < 1e-10


def test_proximal_steps_without_the_clip_factor_are_refused():
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    handle = br.attach(optimizer, prior, num_data=10, before_clip=True)
    model(torch.ones(1, 2)).sum().backward()
    handle.apply_()
    before = model.weight.detach().clone()
    with pytest.raises(br.InvalidArgumentError, match=r"call handle\.clipped\(total_norm, max_norm\)"):
        optimizer.step()
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("name", ["Rprop", "Adadelta", "NAdam", "ASGD"])
def test_optimizers_without_a_known_metric_refuse_kinks(name):
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    with pytest.raises(br.UnsupportedError, match=f"{name}: a prior with a kink needs proximal steps"):
        br.attach(optimizer_of(name, prior.param_groups()), prior, num_data=10)


def test_centred_rmsprop_refuses_kinks():
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1.0))
    with pytest.raises(br.UnsupportedError, match="use centered=False"):
        br.attach(torch.optim.RMSprop(prior.param_groups(), centered=True), prior, num_data=10)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adamax])
def test_weights_without_a_gradient_yet_are_not_thrown_to_zero(make):
    """Adam's step is lr/eps where it has met no gradient; one batch must not wipe an embedding table."""
    table = nn.Embedding(100, 4)
    prior = br.ModelPrior(table, {"*": br.Laplace(1.0)})
    optimizer = make(prior.param_groups(), lr=1e-3, weight_decay=0.0)
    br.attach(optimizer, prior, num_data=100_000)
    table(torch.arange(8)).square().sum().backward()
    before = table.weight.detach().clone()
    optimizer.step()
    assert (table.weight[8:] != 0).float().mean() > 0.98
    assert (table.weight[8:] - before[8:]).abs().max() <= 10.001e-3


def test_a_skipped_amp_step_takes_no_proximal_step():
    model = nn.Linear(2, 1)
    prior = br.ModelPrior(model, br.Laplace(1e-3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1, fused=True)
    br.attach(optimizer, prior, num_data=10)
    scaler = torch.amp.GradScaler("cpu")
    before = model.weight.detach().clone()
    loss = model(torch.full((1, 2), float("inf"))).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert torch.equal(model.weight, before)


# -- the life of a handle ------------------------------------------------------------------------------


def attached(rules=None, **keywords):
    model = net()
    prior = br.ModelPrior(model, rules or br.Gaussian(0.3))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.05)
    return model, prior, optimizer, br.attach(optimizer, prior, num_data=N, **keywords)


def test_remove_ends_it():
    model, prior, optimizer, handle = attached({"0.*": br.Gaussian(0.3, loc=1.0), "*": br.Gaussian(0.3)})
    handle.remove()
    plain = net()
    assert largest_gap(
        trained(model, optimizer), trained(plain, torch.optim.SGD(plain.parameters(), lr=0.05))
    ) == 0.0  # fmt: skip
    br.attach(optimizer, prior, num_data=N)


def test_a_decay_changed_after_attach_is_noticed():
    model, _, optimizer, _ = attached()
    optimizer.param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(br.InvalidArgumentError, match=r"param group 0 was changed to 0\.5 after br\.attach set 0\.185"):
        trained(model, optimizer, steps=1)


def test_a_second_prior_is_refused():
    _, prior, optimizer, _ = attached()
    with pytest.raises(br.InvalidArgumentError, match="has a prior attached already"):
        br.attach(optimizer, prior, num_data=N)


def test_loading_a_checkpoint_does_not_bring_back_an_old_decay():
    _, _, optimizer, _ = attached()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["weight_decay"] = 123.0
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["weight_decay"] == br.Gaussian(0.3).weight_decay(N)


def test_loading_replaces_every_decay_of_the_checkpoint():
    model, prior, optimizer, handle = attached()
    state = copy.deepcopy(optimizer.state_dict())
    handle.remove()
    handle = br.attach(optimizer, prior, num_data=N, before_clip=True)
    assert state["param_groups"][0]["weight_decay"] > 0
    optimizer.load_state_dict(state)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.0]
    handle.remove()
    adamw = torch.optim.AdamW(model.parameters())
    foreign = copy.deepcopy(adamw.state_dict())
    adamw.param_groups[0]["weight_decay"] = 0.0
    br.attach(adamw, prior, num_data=N)
    adamw.load_state_dict(foreign)
    assert adamw.param_groups[0]["weight_decay"] == 0.0


@pytest.mark.parametrize(
    "rules", [{"*": br.Gaussian(0.5, loc=1.0)}, {"0.*": br.Gaussian(0.3, loc=1.0), "*": br.Flat()}]
)
def test_parameters_unfrozen_after_attach_get_their_prior(rules):
    model = net()
    model[0].weight.requires_grad_(False)
    prior = br.ModelPrior(model, rules)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    br.attach(optimizer, prior, num_data=N)
    model[0].weight.requires_grad_(True)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # Already at the centre: neither pulled to 0 nor left without a prior.
    assert torch.allclose(model[0].weight, torch.ones_like(model[0].weight))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (model[0].weight < 2.0).all()


def test_replaced_parameters_are_noticed():
    model, _, optimizer, _ = attached()
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)
    with pytest.raises(br.CoverageError, match=r"0\.weight of the model is another tensor than the one the optimizer"):
        optimizer.step()


def test_a_handle_does_not_keep_the_model_alive():
    model, prior, optimizer, handle = attached()
    alive = weakref.ref(model[0].weight), weakref.ref(optimizer)
    del model, prior, optimizer, handle
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_a_removed_handle_cannot_be_applied():
    _, _, _, handle = attached(before_clip=True)
    handle.remove()
    with pytest.raises(br.InvalidArgumentError, match="was removed from its optimizer"):
        handle.apply_()


def test_parameters_without_a_gradient_feel_no_prior():
    model, _, optimizer, _ = attached({"*": br.Gaussian(0.3, loc=1.0)})
    before = model[2].weight.detach().clone()
    model[0](data()[0]).sum().backward()
    optimizer.step()
    assert torch.equal(model[2].weight, before)


def test_loss_scale_in_place_of_num_data():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, loss_scale=br.LossScale.sum())
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(4.0)


def test_describe_lists_the_routes():
    _, _, _, handle = attached({
        "0.weight": br.Laplace(0.1),
        "0.bias": br.Flat(),
        "2.weight": br.Gaussian(0.5),
        "*": br.Gaussian(0.5, loc=1.0),
    })
    routes = {
        row["parameters"]: (row["route"], row["equivalent weight_decay"]) for row in handle.describe().to_dict()["rows"]
    }
    assert routes["0.weight"][0] == "proximal"
    assert routes["0.bias"] == ("none", "0")
    assert routes["2.weight"][0] == "native"
    assert routes["2.bias"][0] == "native + centre"
    assert routes["2.bias"][1].endswith("toward its centre")


# -- refusals ------------------------------------------------------------------------------------------


def refuse(build, error, message):
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    with pytest.raises(error, match=message):
        br.attach(build(model, prior), prior, num_data=N)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda m, p: torch.optim.SGD(m.parameters(), weight_decay=5e-4), br.InvalidArgumentError,
         r"SGD param group 0 already has weight_decay=0\.0005"),
        (lambda m, p: torch.optim.SGD(p.param_groups(), weight_decay=5e-4), br.InvalidArgumentError,
         r"SGD was given weight_decay=0\.0005 besides a prior"),
        (lambda m, p: torch.optim.AdamW(m.parameters()), br.InvalidArgumentError,
         r"AdamW param group 0 already has weight_decay=0\.01"),
        (lambda m, p: torch.optim.ASGD(p.param_groups()), br.InvalidArgumentError, "a hidden weight decay"),
        (lambda m, p: torch.optim.SparseAdam(m.parameters()), br.UnsupportedError, "SparseAdam takes sparse gradients"),
        (lambda m, p: torch.optim.SGD(m[0].parameters()), br.CoverageError, r"does not hold 2\.weight, 2\.bias"),
        (lambda m, p: torch.optim.SGD([*m.parameters(), nn.Parameter(torch.zeros(3))]), br.CoverageError,
         r"1 trainable parameters that the prior does not cover \(the first of shape \(3,\)\)"),
    ],
)  # fmt: skip
def test_optimizers_that_would_be_silently_wrong_are_refused(build, error, message):
    refuse(build, error, message)


def test_other_refusals():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(
        br.InvalidArgumentError, match=r"expected a ModelPrior, got Gaussian; write br\.ModelPrior.*optimizer first"
    ):
        br.attach(optimizer, br.Gaussian(0.3), num_data=N)
    for keywords in ({}, {"num_data": 3, "loss_scale": br.LossScale.sum()}):
        with pytest.raises(br.InvalidArgumentError, match="num_data: pass the size of the training set"):
            br.attach(optimizer, prior, **keywords)
    with pytest.raises(br.InvalidArgumentError, match="num_data: expected an integer >= 1, got 0"):
        br.attach(optimizer, prior, num_data=0)
    learned = br.ModelPrior(model, br.Gaussian(nn.Parameter(torch.tensor(0.3))))
    with pytest.raises(br.UnsupportedError, match="learned hyper-parameter"):
        br.attach(optimizer, learned, num_data=N)
    bounded = br.ModelPrior(model, br.FromDistribution(torch.distributions.HalfNormal(1.0)))
    with pytest.raises(br.UnsupportedError, match="neither a gradient everywhere nor a proximal operator"):
        br.attach(optimizer, bounded, num_data=N)


def test_later_groups_are_refused_at_the_step():
    model, _, optimizer, _ = attached()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(br.CoverageError, match=r"param groups were added after br\.attach"):
        trained(model, optimizer, steps=1)


def test_sparse_gradients_are_refused():
    model = nn.Embedding(5, 3, sparse=True)
    prior = br.ModelPrior(model, br.Gaussian(0.3, loc=0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=10)
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(br.UnsupportedError, match="its gradient is sparse"):
        optimizer.step()

"""explain: readings against the prior that the optimizer really implies, and every finding on a run that has it."""

from __future__ import annotations

import copy
import io
import json
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bayesreg as br
from bayesreg.explaining.findings.pairs import pairs_of
from bayesreg.explaining.groups.recognise import find_state_dict, recognise
from tests.optimizers.test_decay import ALL
from tests.routes.common import N, data, net, trained
from tests.versions import ADAM_HAS_FLAG, adam_flag, muon


def identifiers(explanation):
    return [finding.identifier for finding in explanation.findings]


def grouped(model, decay):
    weights = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


# -- readings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax", "RMSprop"])
def test_coupled_decay_is_the_prior_whose_attachment_sets_it(name):
    model = net()
    optimizer = getattr(torch.optim, name)(grouped(model, 5e-4))
    first, second = br.explain(optimizer, model, num_data=N).groups
    assert (first.decay, first.weight_decay, first.mean) == ("coupled", 5e-4, 0.0)
    assert first.variance == pytest.approx(1 / (N * 5e-4))
    assert first.std == pytest.approx(first.variance**0.5)
    assert first.parameters == ("0.weight", "2.weight")
    assert first.roles == {"weight": 2}
    assert (second.prior, second.std, second.roles) == ("flat: no decay", math.inf, {"bias": 2})
    # And back: that prior attached is that decay.
    again = net()
    prior = br.ModelPrior(again, br.Gaussian(first.std))
    fresh = getattr(torch.optim, name)(prior.param_groups())
    br.attach(fresh, prior, num_data=N)
    assert max(group["weight_decay"] for group in fresh.param_groups) == pytest.approx(5e-4)


def test_other_losses():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), weight_decay=0.1)
    found = br.explain(optimizer, model, loss_scale=br.LossScale.sum()).groups[0]
    assert found.variance == pytest.approx(10.0)


@pytest.mark.slow
def test_adamw_at_rest_is_the_map_of_the_precision_that_is_read():
    """Full batches, so the weights come to rest: there −g = precision/n · w, coordinate by coordinate."""
    torch.manual_seed(0)
    X, y = data()
    model = nn.Linear(6, 3).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.6, eps=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6000, eta_min=1e-7)
    for _ in range(6000):
        optimizer.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimizer.step()
        schedule.step()
    found = br.explain(optimizer, model, num_data=N).groups[0]
    assert (found.decay, found.std, found.variance, found.mean) == ("decoupled", None, None, None)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    slopes = torch.cat([p.grad.flatten() for p in model.parameters()])
    precision = -slopes * N / weights
    assert found.implied.low == pytest.approx(precision.quantile(0.05).item(), rel=1e-2)
    assert found.implied.median == pytest.approx(precision.median().item(), rel=1e-1)
    assert found.implied.high == pytest.approx(precision.quantile(0.95).item(), rel=1e-2)
    matched = (precision * weights**2).sum() / (weights**2).sum()
    assert found.implied.matched == pytest.approx(matched.item(), rel=1e-2)
    assert f"br.Gaussian(scale={matched**-0.5:.3g})"[:19] in br.explain(optimizer, model, num_data=N).findings[0].remedy


def test_the_flag_is_read_group_by_group():
    model = net()
    groups = grouped(model, 0.1)
    groups[1].update(weight_decay=0.1, decoupled_weight_decay=True)
    first, second = br.explain(torch.optim.Adam(groups), model, num_data=N).groups
    assert (first.decay, second.decay) == ("coupled", "decoupled")


def test_an_attached_prior_is_read_as_what_it_is():
    model = net()
    rules = {"0.weight": br.Gaussian(0.3, loc=0.5), "2.weight": br.Laplace(0.1), "*": br.Flat()}
    prior = br.ModelPrior(model, rules)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    br.attach(optimizer, prior, num_data=N)
    found = {g.parameters[0]: g for g in br.explain(optimizer, model, num_data=N).groups}
    centred, laplace, flat = found["0.weight"], found["2.weight"], found["0.bias"]
    assert (centred.decay, centred.mean, centred.std) == ("prior", 0.5, pytest.approx(0.3))
    assert centred.weight_decay == pytest.approx(1 / (N * 0.09))
    assert "route gradient" in centred.prior
    assert laplace.weight_decay is None
    assert laplace.variance == pytest.approx(2 * 0.1**2)
    assert "route proximal" in laplace.prior
    assert math.isinf(flat.std)
    assert identifiers(br.explain(optimizer, model, num_data=N)) == []


def test_several_optimizers_and_wrappers():
    from accelerate import Accelerator

    model = net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1, weight_decay=1e-3)
    second = Accelerator(cpu=True).prepare(torch.optim.AdamW(model[2].parameters()))
    found = br.explain([first, second], model, num_data=N)
    assert [g.decay for g in found.groups] == ["coupled", "decoupled"]
    assert found.title.startswith("What SGD and AdamW believe about")
    assert "not-held" not in identifiers(found)
    assert "not-held" in identifiers(br.explain(first, model, num_data=N))


def test_it_changes_nothing():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    trained(model, optimizer, steps=3)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    state = torch.random.get_rng_state()
    br.explain(optimizer, model, num_data=N)
    assert torch.equal(state, torch.random.get_rng_state())
    after = (model.state_dict(), optimizer.state_dict())
    assert all(torch.equal(before[0][k], v) for k, v in after[0].items())
    assert before[1]["param_groups"] == after[1]["param_groups"]
    for key, state in after[1]["state"].items():
        assert all(torch.equal(before[1]["state"][key][k], v) for k, v in state.items())


def test_it_prints_in_every_way_and_is_data():
    model = net()
    found = br.explain(torch.optim.SGD(model.parameters(), weight_decay=5e-4), model, num_data=50_000)
    assert "Gaussian, std 0.2, centred on 0" in str(found)
    assert "[biases-decayed]" in str(found)
    assert "<table>" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["groups"][0]["std"] == pytest.approx(0.2)
    from rich.console import Console

    console = Console(record=True, width=200, file=io.StringIO())
    console.print(found)
    assert "biases-decayed" in console.export_text()


# -- findings --------------------------------------------------------------------------------------------------


def find(optimizer, model, identifier, **keywords):
    keywords.setdefault("num_data", N)
    found = br.explain(optimizer, model, **keywords)
    hits = [f for f in found.findings if f.identifier == identifier]
    assert len(hits) == 1, identifiers(found)
    return hits[0]


def test_a_clean_run_has_only_the_note_on_clipping():
    model = net()
    optimizer = torch.optim.SGD(grouped(model, 1e-3))
    assert identifiers(br.explain(optimizer, model, num_data=10_000)) == ["clip-before-decay"]


def test_hidden_decay_of_asgd():
    model = net()
    optimizer = torch.optim.ASGD(grouped(model, 1e-4), lambd=3e-4)
    assert br.explain(optimizer, model, num_data=N).groups[0].weight_decay == pytest.approx(4e-4)
    assert "lambd=0.0003 on top" in br.explain(optimizer, model, num_data=N).findings[0].text


@pytest.mark.parametrize("name", ["Rprop", "LBFGS"])
def test_a_decay_that_is_never_looked_at(name):
    model = net()
    optimizer = getattr(torch.optim, name)([{"params": list(model.parameters()), "weight_decay": 0.1}])
    assert f"which {name} never looks at" in find(optimizer, model, "ignored-decay").text
    assert br.explain(optimizer, model, num_data=N).groups[0].weight_decay == 0.0


class Odd(torch.optim.Optimizer):
    """Decays by the square of the weights."""

    def __init__(self, params, lr=0.1, weight_decay=0.0, broken=False):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "broken": broken})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if group["broken"]:
                raise RuntimeError
            for p in group["params"]:
                p.sub_(group["lr"] * (p.grad + group["weight_decay"] * p * p))


@pytest.mark.parametrize(("broken", "kind"), [(False, "other"), (True, "unknown")])
def test_a_decay_of_its_own_kind(broken, kind):
    model = net()
    optimizer = Odd(model.parameters(), weight_decay=0.1, broken=broken)
    found = br.explain(optimizer, model, num_data=N)
    assert found.groups[0].decay == kind
    assert found.groups[0].std is None
    assert find(optimizer, model, "unknown-decay").severity == "warning"


def test_clipping_is_measured_where_gradients_are_at_hand():
    model = net()
    optimizer = torch.optim.SGD(grouped(model, 0.3))
    assert find(optimizer, model, "clip-before-decay").severity == "note"
    assert "/0.01 times as much" in find(optimizer, model, "clip-before-decay", clip_norm=0.01).text
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    found = find(optimizer, model, "clip-before-decay", clip_norm=0.01)
    assert found.severity == "warning"
    assert f"counts {norm / 0.01:.3g} times as much" in found.text
    assert "clip-before-decay" not in identifiers(br.explain(optimizer, model, num_data=N, clip_norm=100.0))


def test_rounding():
    model = net().to(torch.bfloat16)
    slow = torch.optim.SGD(grouped(model, 5e-4), lr=1e-2)
    assert "5e-06, less than torch.bfloat16" in find(slow, model, "rounding").text
    fast = torch.optim.SGD(grouped(model, 0.5), lr=1e-2, momentum=0.9)
    assert "rounding" not in identifiers(br.explain(fast, model, num_data=N))
    wide = net()
    tiny = torch.optim.AdamW(grouped(wide.float(), 1e-3), lr=1e-6)
    assert "1e-09, less than torch.float32" in find(tiny, wide, "rounding").text
    # In a warm-up, the scheduler tells where the rate is going.
    warming = torch.optim.AdamW(grouped(wide, 1e-3), lr=1e-2)
    torch.optim.lr_scheduler.LinearLR(warming, start_factor=1e-6)
    assert warming.param_groups[0]["lr"] < 1e-7
    assert "rounding" not in identifiers(br.explain(warming, wide, num_data=N))


def test_width():
    model = net()
    assert "It hardly acts" in find(torch.optim.SGD(grouped(model, 1e-6)), model, "width").remedy
    assert "prior stds" in find(torch.optim.SGD(grouped(model, 100.0)), model, "width").text


def test_flat_and_tied_and_left_behind():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert identifiers(br.explain(optimizer, model, num_data=N)) == ["flat", "tied"]
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.3)})
    br.attach(optimizer, prior, num_data=N)
    assert identifiers(br.explain(optimizer, model, num_data=N)) == ["tied"]
    model_copy, optimizer_copy = copy.deepcopy((model, optimizer))
    assert "lost-hooks" in identifiers(br.explain(optimizer_copy, model_copy, num_data=N))


# -- checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stepped", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_state_dicts_are_recognised(name, stepped, old):
    """With the keys of today, and without those that newer versions of torch added."""
    model = nn.Linear(3, 2, bias=False)
    optimizer = getattr(torch.optim, name)(model.parameters())
    if stepped and name not in ("SparseAdam", "LBFGS"):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["initial_lr"] = 0.1
        for key in ("decoupled_weight_decay", "foreach", "fused", "capturable", "differentiable", "maximize"):
            if old:
                group.pop(key, None)
    alike = ("Adam", "AdamW") if name in ("Adam", "AdamW") else ("RAdam", "Adamax")
    bare = old or (name in ("Adam", "AdamW") and not ADAM_HAS_FLAG)
    ambiguous = bare and name in alike and not (stepped and name == "Adamax")
    if ambiguous:
        with pytest.raises(br.InvalidArgumentError, match=rf"does not say which optimizer wrote it.*{name}"):
            recognise(state, None)
        assert recognise(state, name) is type(optimizer)
    else:
        assert recognise(state, None) is type(optimizer)


@adam_flag
def test_a_state_dict_reads_like_the_optimizer():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    trained(model, optimizer, steps=5)
    live = br.explain(optimizer, model, num_data=N).to_dict()
    assert br.explain(optimizer.state_dict(), model, num_data=N).to_dict() == live
    without = br.explain({"epoch": 3, "optimizer": optimizer.state_dict()}, num_data=N)
    assert without.groups[0].parameters == ("#0", "#1", "#2", "#3")
    assert without.groups[0].implied.median == live["groups"][0]["implied"]["median"]
    assert without.groups[0].implied.matched is None
    # Another model's shapes: no name is better than a wrong one.
    other = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    assert br.explain(optimizer.state_dict(), other, num_data=N).groups[0].parameters[0] == "#0"


def test_names_that_the_optimizer_was_given():
    model = net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    trained(model, optimizer, steps=1)
    found = br.explain(optimizer.state_dict(), num_data=N).groups[0]
    assert found.parameters == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert found.roles == {"weight": 2, "bias": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "expected an optimizer's state_dict.* got the keys model"),
        ([1], r"expected an optimizer's state_dict\(\), got list"),
        ({"a": {"state": {}, "param_groups": []}, "b": {"state": {}, "param_groups": []}}, "several under a, b"),
    ],
)
def test_what_is_no_checkpoint(content, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        find_state_dict(content)
    lightning = {"optimizer_states": [{"state": {}, "param_groups": []}]}
    assert find_state_dict(lightning) is lightning["optimizer_states"][0]
    with pytest.raises(br.InvalidArgumentError, match="has no param groups"):
        br.explain(lightning, num_data=N)


def test_bad_arguments():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(br.InvalidArgumentError, match="num_data: pass the size"):
        br.explain(optimizer, model)
    with pytest.raises(br.InvalidArgumentError, match="num_data: expected an integer"):
        br.explain(optimizer, model, num_data=-1)
    with pytest.raises(br.InvalidArgumentError, match="model: pass the one"):
        br.explain(optimizer, num_data=N)
    with pytest.raises(br.InvalidArgumentError, match="model: expected a module, got int"):
        br.explain(optimizer, 1000)
    with pytest.raises(br.InvalidArgumentError, match="holds none of its parameters"):
        br.explain(optimizer, net(), num_data=N)
    with pytest.raises(br.InvalidArgumentError, match="clip_norm"):
        br.explain(optimizer, model, num_data=N, clip_norm=0.0)
    with pytest.raises(br.InvalidArgumentError, match="got the path 'sgd': read it first"):
        br.explain("sgd", model, num_data=N)


# -- what a review found ---------------------------------------------------------------------------------------------


def test_names_are_not_guessed_over_several_groups():
    """The optimizer holds weights first, then biases; the model has them in turn."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = torch.optim.SGD(grouped(model, 1e-2), lr=0.1)
    found = br.explain(optimizer.state_dict(), model, num_data=N)
    assert [g.parameters for g in found.groups] == [("#0", "#1"), ("#2", "#3")]
    assert "biases-decayed" not in identifiers(found)


def test_names_of_several_groups_are_used_where_the_optimizer_has_them():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    named = dict(model.named_parameters())
    weights = [(n, p) for n, p in named.items() if p.ndim > 1]
    rest = [(n, p) for n, p in named.items() if p.ndim == 1]
    optimizer = torch.optim.SGD([{"params": weights, "weight_decay": 1e-2}, {"params": rest}], lr=0.1)
    found = br.explain(optimizer.state_dict(), model, num_data=N)
    assert found.groups[0].parameters == ("0.weight", "1.weight")
    assert found.groups[0].weights_rms is not None


@pytest.mark.parametrize("extra", ["caution", "decouple", "rectify"])
def test_a_third_party_checkpoint_is_not_taken_for_one_of_torch(extra):
    state = torch.optim.SGD(net().parameters(), lr=0.1, weight_decay=0.1).state_dict()
    state["param_groups"][0][extra] = True
    with pytest.raises(br.InvalidArgumentError, match="does not say which optimizer wrote it"):
        br.explain(state, num_data=N)
    assert br.explain(state, num_data=N, optimizer_class="sgd").groups[0].decay == "coupled"


def test_parameters_without_a_prior_under_an_attached_one_are_not_left_behind():
    model = net()
    model[2].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    br.attach(optimizer, br.ModelPrior(model, {"0.*": br.Gaussian(0.3)}), num_data=N)
    assert "lost-hooks" not in identifiers(br.explain(optimizer, model, num_data=N))


@pytest.mark.parametrize("name", ["Adafactor", pytest.param("Muon", marks=muon)])
def test_no_advice_that_cannot_come_true(name):
    model = nn.Linear(3, 2, bias=False)
    optimizer = getattr(torch.optim, name)(model.parameters(), weight_decay=0.1)
    text = str(br.explain(optimizer, model, num_data=N))
    words = "bounds singular values by 10 " if name == "Muon" else "differs by coordinate "
    assert f"no Gaussian; {words}" in text
    assert "Explain again" not in text
    assert "no state to read it from" not in text


@adam_flag
def test_state_and_weights_may_be_on_different_devices():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    trained(model, optimizer, steps=1)
    found = br.explain(optimizer.state_dict(), copy.deepcopy(model).to("cpu"), num_data=N)
    assert found.groups[0].implied.matched is not None


# -- what a newcomer found ---------------------------------------------------------------------------------------------


def test_the_advice_for_adamw_knows_of_a_clip():
    """Its second moment is that of clipped gradients: a prior before the clip must be stronger by that factor."""
    model = net()
    optimizer = torch.optim.AdamW(grouped(model, 0.5), lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(data()[0]), data()[1]).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    assert norm > 0.02

    def remedy(**keywords):
        return br.explain(optimizer, model, num_data=N, **keywords).findings[0].remedy

    assert "If the loop clips gradients, pass clip_norm=" in remedy()
    optimizer.zero_grad()
    assert "divide its precision by E min(1, 0.01/|g|)" in remedy(clip_norm=0.01)
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    matched = br.explain(optimizer, model, num_data=N).groups[0].implied.matched
    assert f"it is br.Gaussian(scale={(matched * norm / 0.01) ** -0.5:.3g})" in remedy(clip_norm=0.01)
    assert "clip" not in remedy(clip_norm=100.0)


@adam_flag
def test_a_checkpoint_with_its_weights_is_used_whole():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    trained(model, optimizer, steps=2)
    found = br.explain({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, num_data=N)
    assert found.groups[0].parameters == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert found.groups[0].implied.matched is not None


@pytest.mark.parametrize(("dampening", "lost"), [(0.0, False), (0.9, True)])
def test_explain_and_attach_agree_on_what_rounding_takes(dampening, lost):
    """With dampening a steady gradient gains (1 − dampening)/(1 − momentum): one number, asked in one place."""
    settings = {"lr": 0.01, "momentum": 0.9, "dampening": dampening}
    model = torch.nn.Linear(3, 2, bias=False).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), weight_decay=0.1, **settings)
    told = {finding.identifier for finding in br.explain(optimizer, model, num_data=10).findings}
    assert ("rounding" in told) == lost
    prior = br.ModelPrior(model, br.Gaussian.from_weight_decay(0.1, 10))
    attached = torch.optim.SGD(model.parameters(), **settings)
    br.attach(attached, prior, num_data=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            model.weight.grad = torch.zeros_like(model.weight)
            attached.step()
    assert any(issubclass(one.category, br.RoundingWarning) for one in caught) == lost


# -- factors -----------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(4, 4, bias=False) for _ in range(4))


def test_decay_of_both_factors_is_a_nuclear_norm():
    model = nn.ModuleList([Attention(), Attention()])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    (found,) = [f for f in br.explain(optimizer, model, num_data=N).findings if f.identifier == "nuclear-norm"]
    assert found.text.startswith("4 pairs of weights act as a product only (0.q_proj.weight and k_proj")
    assert found.importance == pytest.approx(1.0)
    adamw = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    text = str(br.explain(adamw, model, num_data=N))
    assert "of both factors, were it coupled, is" in text
    # Of one factor alone it is none.
    only = torch.optim.SGD([model[0].q_proj.weight, model[0].v_proj.weight], lr=0.1, weight_decay=0.1)
    assert "nuclear-norm" not in identifiers(br.explain(only, model, num_data=N))


def test_factors_of_other_decays_are_no_pair():
    model = Attention()
    q, k = model.q_proj.weight, model.k_proj.weight
    groups = [{"params": [q], "weight_decay": 0.1}, {"params": [k], "weight_decay": 0.2}]
    assert "nuclear-norm" not in identifiers(br.explain(torch.optim.SGD(groups, lr=0.1), model, num_data=N))
    both = [torch.optim.SGD([q], lr=0.1, weight_decay=0.1), torch.optim.AdamW([k], lr=0.1, weight_decay=0.1)]
    assert "nuclear-norm" not in identifiers(br.explain(both, model, num_data=N))


def test_the_factors_of_adapters_are_one_anothers():
    names = [f"layers.0.{p}_proj.lora_{x}.default.weight" for p in "qk" for x in "AB"]
    assert pairs_of(names) == [(names[0], names[1]), (names[2], names[3])]


def test_it_is_the_nuclear_norm():
    """min over AB = M of ½‖A‖² + ½‖B‖² is ‖M‖_*: at the balanced factors, and above it at others."""
    generator = torch.Generator().manual_seed(0)
    M = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    U, sizes, V = torch.linalg.svd(M)
    A, B = U * sizes.sqrt(), sizes.sqrt()[:, None] * V
    assert torch.allclose(A @ B, M)
    assert 0.5 * float(A.square().sum() + B.square().sum()) == pytest.approx(float(sizes.sum()))
    for _ in range(20):
        G = torch.randn(4, 4, generator=generator, dtype=torch.float64)
        other = 0.5 * float((A @ G).square().sum() + (torch.linalg.inv(G) @ B).square().sum())
        assert other >= float(sizes.sum())

"""Models that are not as plain as they look: scripted, pruned, tied by their memory, complex, with rows that data
never move."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

import bayesreg as br
from bayesreg.errors import CoverageError, InvalidArgumentError, ReferenceMismatchError, UnsupportedError


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::DeprecationWarning")  # of torch 2.14 and newer, and older
@pytest.mark.parametrize(
    "form",
    [
        lambda m: torch.jit.script(m),
        lambda m: torch.jit.trace(m, torch.ones(1, 4, dtype=torch.float64)),
        lambda m: nn.Sequential(torch.jit.script(m[0]), m[1], m[2]),
        torch.fx.symbolic_trace,
    ],
    ids=["script", "trace", "a part", "fx"],
)
def test_scripted_and_traced_models_have_priors_like_others(form):
    plain = net()
    model = form(copy.deepcopy(plain))
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    wanted = br.ModelPrior(plain, br.Gaussian(0.5)).log_prob()
    assert prior.log_prob().item() == pytest.approx(wanted.item())
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=10)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        kept = 1 - 0.1 / (10 * 0.25) if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), kept * old, rtol=1e-15, atol=0)


WAYS = {
    "prune": (lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5), "weight_orig"),
    "weight_norm": (parametrizations.weight_norm, "parametrizations.weight"),
    "orthogonal": (parametrizations.orthogonal, "parametrizations.weight"),
    "old weight_norm": (nn.utils.weight_norm, "weight_g"),
    "deleted": (lambda layer: delattr(layer, "bias"), "0.bias .*deleted"),
    "none": (lambda layer: setattr(layer, "bias", None), "0.bias .*deleted"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_put_into_another_form_after_attach_is_named(way):
    change, said = WAYS[way]
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=32)
    change(model[0])
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(CoverageError, match=rf"{said}.*build prior and optimizer again"):
        optimizer.step()
    with pytest.raises(CoverageError, match="no longer has this parameter"):
        prior.log_prob()


@pytest.mark.parametrize("centred", [True, False])
def test_weights_resized_under_the_prior_are_named(centred):
    model = net()
    made = br.Gaussian.centered_at(copy.deepcopy(model), scale=0.1) if centred else br.Gaussian(0.1)
    prior = br.ModelPrior(model, {"*": made})
    optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=32)
    model[2].weight.data = torch.zeros(5, 8, dtype=torch.float64)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(CoverageError, match=r"2.weight had the shape \(3, 8\).* has \(5, 8\) now"):
        optimizer.step()


def test_pruned_elements_are_spoken_of_and_can_be_left_out():
    model = net()
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    prior = br.ModelPrior(model, {"0.weight": br.Gaussian(1.0), "*": br.Flat()})
    assert prior["0.weight_orig"].family == "Gaussian"
    assert "leaves 16 of 32 elements of 0.weight_orig" in str(prior.describe())
    scale = torch.where(model[0].weight_mask == 1, 1.0, math.inf)
    left = br.ModelPrior(model, {"0.weight": br.Gaussian(scale), "*": br.Flat()})
    wanted = 0.5 * model[0].weight.detach().square().sum()
    assert left.penalty().item() == pytest.approx(float(wanted), rel=1e-12)


def test_padding_rows_are_spoken_of_unless_they_are_left_out():
    model = nn.Embedding(5, 3, padding_idx=2)
    assert "Row 2 of weight is padding" in str(br.ModelPrior(model, br.Gaussian(1.0)).describe())
    scale = torch.ones(5, 1)
    scale[2] = math.inf
    assert "padding" not in str(br.ModelPrior(model, br.Gaussian(scale)).describe())
    assert "padding" not in str(br.ModelPrior(nn.Embedding(5, 3), br.Gaussian(1.0)).describe())


def test_weights_tied_through_data_are_refused():
    model = net()
    model.append(nn.Linear(4, 8).double())
    model[3].weight.data = model[0].weight.data
    with pytest.raises(InvalidArgumentError, match=r"0.weight and 3.weight are two parameters over the same memory"):
        br.ModelPrior(model, br.Gaussian(1.0))
    br.ModelPrior(model, {"3.*": br.Flat(), "*": br.Gaussian(1.0)})
    model[3].weight = model[0].weight
    assert len(br.ModelPrior(model, br.Gaussian(1.0))) == 5


def test_complex_weights_have_no_density():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3, 3, dtype=torch.complex64))

    with pytest.raises(UnsupportedError, match="w: expected real weights, got complex64"):
        br.ModelPrior(Complex(), br.Gaussian(1.0))
    assert br.ModelPrior(Complex(), {"*": br.Flat()}).log_prob().item() == 0.0
    with pytest.raises(InvalidArgumentError, match="expected real values, got complex64"):
        br.Gaussian(1.0).log_prob(torch.ones(3, dtype=torch.complex64))


SPREADS = {
    "gaussian": br.Gaussian, "laplace": br.Laplace, "student": lambda scale: br.StudentT(3.0, scale),
    "cauchy": br.Cauchy,
}  # fmt: skip


@pytest.mark.parametrize("family", SPREADS)
def test_elements_of_infinite_scale_are_flat(family):
    make = SPREADS[family]
    scale = torch.full((3, 2), 0.5, dtype=torch.float64)
    scale[:2] = math.inf
    value = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prior, alone = make(scale), make(0.5)
    torch.testing.assert_close(prior.log_prob(value), alone.log_prob(value[2:]))
    slope, wanted = torch.zeros_like(value), torch.zeros(1, 2, dtype=torch.float64)
    prior.add_grad_([slope], [value], 1.0)
    alone.add_grad_([wanted], [value[2:]], 1.0)
    assert torch.equal(slope, torch.cat([torch.zeros(2, 2, dtype=torch.float64), wanted]))
    assert torch.equal(prior.curvature(value)[:2], torch.zeros(2, 2, dtype=torch.float64))
    for step in (0.3, torch.full_like(value, 0.3)):
        moved = prior.prox(value, step)
        assert torch.equal(moved[:2], value[:2])
        torch.testing.assert_close(moved[2:], alone.prox(value[2:], 0.3))
    assert "4 of them flat" in prior.describe()
    with pytest.raises(UnsupportedError, match="elements of infinite scale are flat"):
        prior.sample((3, 2))
    with pytest.raises(InvalidArgumentError, match=r"for which the prior is br.Flat\(\)"):
        make(torch.full((2,), math.inf))
    with pytest.raises(InvalidArgumentError, match="expected a finite"):
        make(math.inf)


@pytest.mark.parametrize("family", SPREADS)
def test_rows_of_infinite_scale_stay_where_they_are_and_survive_a_file(family, tmp_path):
    torch.manual_seed(0)
    model = nn.Embedding(5, 3)
    scale = torch.ones(5, 1)
    scale[:4] = math.inf
    prior = br.ModelPrior(model, {"*": SPREADS[family](scale)})
    prior.save(tmp_path / "prior.safetensors")
    prior = br.ModelPrior.load(tmp_path / "prior.safetensors", model)
    optimizer = torch.optim.Adam(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=10)
    start = model.weight.detach().clone()
    for _ in range(3):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    assert torch.equal(model.weight.detach()[:4], start[:4])
    assert not torch.equal(model.weight.detach()[4], start[4])


def test_a_file_with_plain_and_averaged_weights_is_not_chosen_from(tmp_path):
    state = net().state_dict()
    both = {"state_dict": state, "state_dict_ema": {f"module.{k}": v + 1 for k, v in state.items()}, "epoch": 3}
    torch.save(both, tmp_path / "both.pt")
    with pytest.raises(
        ReferenceMismatchError, match=r"got state_dict and state_dict_ema; choose one.*'state_dict_ema'"
    ):
        br.load_reference(tmp_path / "both.pt")
    aside = {"state_dict": state, "criterion": {"centre": torch.zeros(3)}}
    assert len(br.load_reference(aside)) == len(state)


def test_a_loss_with_weights_of_its_own_is_refused_with_the_way_on():
    model, criterion = net(), nn.Linear(3, 3).double()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)
    with pytest.raises(CoverageError, match="2 trainable parameters that the prior does not cover"):
        br.attach(optimizer, br.ModelPrior(model, br.Gaussian(1.0)), num_data=32)
    both = nn.ModuleDict({"model": model, "criterion": criterion})
    prior = br.ModelPrior(both, {"criterion.*": br.Flat(), br.biases: br.Flat(), "*": br.Gaussian(1.0)})
    br.attach(optimizer, prior, num_data=32)
    F.mse_loss(criterion(model(torch.ones(1, 4).double())), torch.zeros(1, 3).double()).backward()
    optimizer.step()

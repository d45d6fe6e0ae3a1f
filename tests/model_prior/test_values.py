"""The density at given values and draws by raw names: for `functional_call`, whatever the model is wrapped in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

import bayesreg as br


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def parametrized(make):
    model = network()
    make(model[0])
    return model


def compiled(model):
    # Names and wrapping alone; what it computes is that of the module inside.
    return torch.compile(model, backend="eager")


def tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x).tanh())

    torch.manual_seed(0)
    return Tied().double()


MODELS = {
    "plain": network,
    "spectral_norm": lambda: parametrized(parametrizations.spectral_norm),
    "weight_norm": lambda: parametrized(parametrizations.weight_norm),
    "orthogonal": lambda: parametrized(parametrizations.orthogonal),
    "averaged": lambda: AveragedModel(network()),
    "compiled": lambda: compiled(network()),
    "compiled and parametrized": lambda: compiled(parametrized(parametrizations.weight_norm)),
    "tied": tied,
}

PRIORS = {
    "one": lambda names: br.Gaussian(0.5),
    "all of several families": lambda names: {br.biases: br.Laplace(0.3), "*": br.StudentT(4.0, 0.2)},
}


def state(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("rules", PRIORS.values(), ids=PRIORS)
def test_draws_are_what_functional_call_takes_and_nothing_is_changed(make, rules):
    model = make().eval()
    prior = br.ModelPrior(model, rules(None))
    before = state(model)
    raw = dict(model.named_parameters())
    draw = prior.draw(generator=torch.Generator().manual_seed(0))
    assert set(draw) <= set(raw)
    assert all(draw[name].shape == raw[name].shape for name in draw)
    outputs = functional_call(model, draw, (X,))
    assert torch.isfinite(outputs).all()
    # What the module computes with these values is what it computes once they are its own.
    copied = make().eval()
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if name in draw:
                parameter.copy_(draw[name])
    assert torch.allclose(outputs, copied(X), rtol=1e-10, atol=1e-12)
    assert prior.log_prob(draw).item() == pytest.approx(br.ModelPrior(copied, rules(None)).log_prob().item(), rel=1e-12)
    assert unchanged(model, before)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_values_that_are_the_models_own_change_nothing(make):
    model = make()
    prior = br.ModelPrior(model, PRIORS["all of several families"](None))
    own = dict(model.named_parameters(remove_duplicate=False))
    assert torch.equal(prior.log_prob(own), prior.log_prob())
    assert torch.equal(prior.penalty(own), prior.penalty())
    assert torch.equal(prior.log_prob({}), prior.log_prob())
    first = next(iter(own))
    moved = prior.penalty({first: own[first] + 1.0})
    with torch.no_grad():
        own[first].add_(1.0)
    assert moved.item() == pytest.approx(prior.penalty().item(), rel=1e-12)


def joint_rules(model):
    held = {name: p for name, p in model.named_parameters() if name.startswith("0.")}
    diag = {name: torch.full_like(p, 0.5).detach() for name, p in held.items()}
    factor = {name: torch.linspace(-1, 1, 2 * p.numel()).double().reshape(*p.shape, 2) for name, p in held.items()}
    return {"0.*": br.LowRankGaussian(diag, factor), "2.bias": br.Flat(), "*": br.Gaussian(0.3)}


def test_joint_densities_take_values_too():
    model = network()
    prior = br.ModelPrior(model, joint_rules(model))
    before = state(model)
    draw = prior.draw(generator=torch.Generator().manual_seed(1))
    assert set(draw) == {"0.weight", "0.bias", "2.weight"}
    there = prior.log_prob(draw)
    assert unchanged(model, before)
    prior.sample_(generator=torch.Generator().manual_seed(1))
    assert there.item() == pytest.approx(prior.log_prob().item(), rel=1e-12)
    # A part of it alone is evaluated with the others where they are.
    one = {"0.bias": torch.zeros(4, dtype=torch.float64)}
    moved = prior.penalty(one).item()
    with torch.no_grad():
        model[0].bias.zero_()
    assert moved == pytest.approx(prior.penalty().item(), rel=1e-12)


def test_the_density_is_differentiable_in_the_values_and_maps_over_many():
    model = network()
    prior = br.ModelPrior(model, PRIORS["all of several families"](None))
    values = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    gradients = torch.autograd.grad(prior.penalty(values), list(values.values()))
    expected = torch.autograd.grad(prior.penalty(), list(model.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(gradients, expected, strict=True))
    assert all(p.grad is None for p in model.parameters())
    found = torch.func.grad(prior.log_prob)({name: p.detach() for name, p in values.items()})
    assert all(torch.allclose(-found[name], g, rtol=1e-12) for name, g in zip(values, gradients, strict=True))
    many = {name: torch.stack([p.detach(), p.detach() + 1.0]) for name, p in values.items()}
    apart = [prior.log_prob({name: p[i] for name, p in many.items()}) for i in range(2)]
    assert torch.allclose(torch.func.vmap(prior.log_prob)(many), torch.stack(apart), rtol=1e-12)


def test_frozen_parameters_do_not_count_wherever_they_are():
    model = network()
    model[0].weight.requires_grad_(False)
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    far = {"0.weight": torch.full((4, 3), 9.0, dtype=torch.float64)}
    assert torch.equal(prior.penalty(far), prior.penalty())


@pytest.mark.parametrize(("values", "words"), [
    ({"0.wieght": torch.zeros(4, 3)}, r"'0\.wieght' is no parameter of the model; did you mean '0\.weight'"),
    ({"0.weight": torch.zeros(3, 4)}, r"values: expected 0\.weight of shape \(4, 3\), got \(3, 4\)"),
    ({"0.weight": 3.0}, r"values: expected 0\.weight of shape \(4, 3\), got float"),
    ([torch.zeros(4, 3)], "expected a mapping from the names of model.named_parameters"),
])  # fmt: skip
def test_values_that_do_not_fit_are_refused(values, words):
    with pytest.raises(br.InvalidArgumentError, match=words):
        br.ModelPrior(network(), br.Gaussian(0.5)).log_prob(values)


def test_an_effective_weight_is_not_taken_for_the_tensor_behind_it():
    model = parametrized(parametrizations.spectral_norm)
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    with pytest.raises(br.InvalidArgumentError, match=r"parametrizations\.weight\.original"):
        prior.log_prob({"0.weight": model[0].weight.detach()})
    assert list(prior.draw()) == ["0.parametrizations.weight.original", "2.weight"]
    assert [entry.name for entry in prior] == ["0.bias", "0.weight", "2.weight", "2.bias"]


class Several(nn.Module):
    """One parameter or more for each family that joins parameters or is made of others."""

    def __init__(self):
        super().__init__()
        self.low = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2, bias=False)})
        self.B, self.A = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.zeros(2, 3))
        self.f = nn.ModuleDict({"one": nn.Linear(2, 2, bias=False), "two": nn.Linear(2, 2, bias=False)})
        self.g = nn.Linear(2, 2, bias=False)
        self.mix = nn.Linear(2, 3, bias=False)
        self.fan = nn.Linear(3, 4, bias=False)
        self.alone = nn.Linear(2, 3, bias=False)
        self.scale = nn.Linear(2, 2, bias=False)


def test_a_file_written_before_there_were_terms_is_read_to_the_same_density(tmp_path):
    model = Several().double()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.linspace(0.1, 0.9, p.numel(), dtype=torch.float64).reshape(p.shape) * (i + 1) / 10)
    prior = br.ModelPrior.load(Path(__file__).parent / "files" / "prior-format-1-joint.safetensors", model)
    assert prior.log_prob().item() == pytest.approx(-58.142180586541855, rel=1e-13)
    assert prior.penalty().item() == pytest.approx(32.58038441292946, rel=1e-13)
    prior.save(tmp_path / "again.safetensors")
    assert torch.equal(br.ModelPrior.load(tmp_path / "again.safetensors", model).log_prob(), prior.log_prob())


def test_a_draw_of_nothing_is_refused():
    with pytest.raises(br.UnsupportedError, match="a density that can be drawn from, got MCP, Flat"):
        br.ModelPrior(nn.Linear(3, 2), br.MCP(1.0, 2.0)).draw()
    assert list(br.ModelPrior(nn.Linear(3, 2), {"weight": br.Gaussian(1.0), "*": br.MCP(1.0, 2.0)}).draw()) == [
        "weight"
    ]


def test_a_prior_answers_to_the_names_of_its_draws():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    prior = br.ModelPrior(model, br.Gaussian(0.5))
    assert all(prior[name] is prior["0.weight"] for name in prior.draw())

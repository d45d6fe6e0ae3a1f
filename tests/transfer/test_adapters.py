"""lora_prior: which factors it finds, what multiplies them, what else is trained, and what it is about."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrize

import bayesreg as br

lora_prior = br.transfer.lora_prior


class LoRALinear(nn.Module):
    """As most codes write it."""

    def __init__(self, base, rank=2, scaling=3.0, seed=0):
        super().__init__()
        self.base, self.scaling = base.requires_grad_(False), scaling
        generator = torch.Generator().manual_seed(seed)
        dtype = base.weight.dtype
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features, generator=generator, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, dtype=dtype))

    def forward(self, x):
        return self.base(x) + self.scaling * (x @ self.lora_A.T) @ self.lora_B.T

    def update(self):
        return self.scaling * self.lora_B @ self.lora_A


def network(head=True):
    torch.manual_seed(1)
    layers = [LoRALinear(nn.Linear(5, 6).double()), nn.Tanh(), LoRALinear(nn.Linear(6, 4).double(), 3, 0.5)]
    return nn.Sequential(*layers, *([nn.Linear(4, 2).double()] if head else []))


def moved(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


def explicit(model, scales):
    return sum(0.5 * (model[i].update() / s).square().sum() for i, s in scales.items()).item()


def test_layers_say_what_multiplies_their_factors():
    model = moved(network(head=False))
    assert lora_prior(model, 0.1).penalty().item() == pytest.approx(explicit(model, {0: 0.1, 2: 0.1}), rel=1e-12)
    model[0].scaling = torch.tensor(3.0)
    assert lora_prior(model, 0.1).penalty().item() == pytest.approx(explicit(model, {0: 0.1, 2: 0.1}), rel=1e-6)
    given = lora_prior(model, 0.1, scaling=1.0).penalty().item()
    assert given == pytest.approx(explicit(model, {0: 0.3, 2: 0.05}), rel=1e-6)


def test_other_codes_keep_alpha_and_rank():
    model = moved(network(head=False))
    for layer in (model[0], model[2]):
        layer.alpha, layer.rank = layer.scaling * len(layer.lora_A), len(layer.lora_A)
        kept, layer.scaling = layer.scaling, None
        layer.update = lambda layer=layer, kept=kept: kept * layer.lora_B @ layer.lora_A
    assert lora_prior(model, 0.1).penalty().item() == pytest.approx(explicit(model, {0: 0.1, 2: 0.1}), rel=1e-12)
    del model[0].alpha
    with pytest.raises(br.InvalidArgumentError, match=r"LoRALinear does not say what multiplies .*0\.lora_A"):
        lora_prior(model, 0.1)


def test_factors_with_other_names_are_given():
    model = nn.Linear(5, 6).double()
    model.down, model.up = nn.Parameter(torch.randn(2, 5).double()), nn.Parameter(torch.randn(6, 2).double())
    model.weight.requires_grad_(False)
    prior = lora_prior(model, 0.1, factors=[("up", "down")], scaling=2.0)
    expected = 0.5 * (2.0 * model.up @ model.down / 0.1).square().sum()
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-12)
    assert prior["bias"].family == "Flat"
    with pytest.raises(br.InvalidArgumentError, match="expected names of parameters, got 'upp'; did you mean 'up'"):
        lora_prior(model, 0.1, factors=[("upp", "down")], scaling=2.0)
    with pytest.raises(br.InvalidArgumentError, match="scaling: expected with factors="):
        lora_prior(model, 0.1, factors=[("up", "down")])
    with pytest.raises(br.InvalidArgumentError, match=r"expected LoRA adapters .* got none among weight, bias"):
        lora_prior(nn.Linear(2, 2), 0.1)


def test_a_parametrization_is_a_layer_too():
    class LoRA(nn.Module):
        def __init__(self):
            super().__init__()
            self.lora_A, self.lora_B, self.scaling = (
                nn.Parameter(torch.randn(2, 5)),
                nn.Parameter(torch.ones(6, 2)),
                2.0,
            )

        def forward(self, weight):
            return weight + self.scaling * self.lora_B @ self.lora_A

    model = nn.Linear(5, 6).requires_grad_(False)
    start = model.weight.clone()
    parametrize.register_parametrization(model, "weight", LoRA())
    prior = lora_prior(model, 0.1)
    expected = 0.5 * ((model.weight - start) / 0.1).square().sum()
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-4)


def test_what_else_is_trained_needs_a_prior():
    model = network()
    with pytest.raises(br.CoverageError, match=re.escape("head: 3.weight is trained beside the adapters")):
        lora_prior(model, 0.1)
    prior = lora_prior(model, 0.1, head=br.Gaussian(1.0))
    assert [(e.name, e.prior and e.prior.family) for e in prior if not e.name.startswith(("0", "2"))] == [
        ("3.weight", "Gaussian"), ("3.bias", "Flat"),
    ]  # fmt: skip
    assert prior["3.weight"].describe() == "Gaussian, std 1, centred on 0"
    assert all(e.prior is None for e in prior if "base" in e.name)  # frozen, not counted
    both = lora_prior(model, 0.1, head={"3.*": br.Laplace(1.0)})
    assert both["3.bias"].family == "Laplace"
    with pytest.raises(br.CoverageError, match=r"no rule covers 3\.weight"):
        lora_prior(model, 0.1, head={"3.bias": br.Laplace(1.0)})
    with pytest.raises(br.InvalidArgumentError, match="head: expected none"):
        lora_prior(network(head=False), 0.1, head=br.Gaussian(1.0))


def test_scales_go_by_layer_or_by_weight():
    model = moved(network())
    model[3].requires_grad_(False)
    by_layer = lora_prior(model, {"0.*": 0.1, "*": 0.3})
    assert by_layer.penalty().item() == pytest.approx(explicit(model, {0: 0.1, 2: 0.3}), rel=1e-12)
    each = {"0.weight": 0.1 + torch.rand(6, 5).double(), "2.weight": 0.1 + torch.rand(4, 6).double()}
    by_weight = lora_prior(model, {**each, "3.weight": torch.ones(2, 4)})
    assert by_weight.notes[0] == "Scales of 1 weights without an adapter were passed over."
    expected = explicit(model, {0: each["0.weight"], 2: each["2.weight"]})
    assert by_weight.penalty().item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(br.CoverageError, match=r"scale: no rule covers 2\.weight"):
        lora_prior(model, {"0.*": 0.1})
    with pytest.raises(br.PatternError, match=r"scale 'nothing': expected a rule that matches an adapted weight \(0\."):
        lora_prior(model, {"*": 0.1, "nothing": 0.2})
    # A tensor is never passed over for a weight that has an adapter, nor under a name that is none.
    with pytest.raises(br.PatternError, match=r"scale '0\.wieght': .* did you mean '0\.weight'"):
        lora_prior(model, {"0.wieght": each["0.weight"], "*": 0.1})
    with pytest.raises(br.PatternError, match="rules before it take all that it matches; move it up"):
        lora_prior(model, {"*": 0.1, "0.weight": each["0.weight"]})
    with pytest.raises(br.InvalidArgumentError, match=r"scale of 0\.weight: .* the weight's, \(6, 5\), got \(5, 6\)"):
        lora_prior(model, {"0.weight": each["0.weight"].T, "*": 0.1})
    with pytest.raises(br.InvalidArgumentError, match=r"scale of 0\.lora_B: expected a value > 0"):
        lora_prior(model, -0.1)


def test_it_is_l2_sp_on_the_merged_weights():
    model = moved(network(head=False))
    merged = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    start = {f"{i}.{part}": getattr(model[i].base, part).clone() for i in (0, 2) for part in ("weight", "bias")}
    with torch.no_grad():
        for i in (0, 2):
            merged[i].weight.copy_(model[i].base.weight + model[i].update())
            merged[i].bias.copy_(model[i].base.bias)
    full = br.transfer.l2_sp(merged, start, body_scale=0.1)
    assert lora_prior(model, 0.1).penalty().item() == pytest.approx(full.penalty().item(), rel=1e-12)


def test_an_earlier_adapter_may_be_the_centre(tmp_path):
    model = moved(network(head=False))
    earlier = {n: p.detach().clone() for n, p in model.named_parameters() if "lora" in n}
    later = moved(copy.deepcopy(model))
    save_file(earlier, tmp_path / "adapter.safetensors")
    expected = sum(0.5 * ((later[i].update() - model[i].update()) / 0.1).square().sum() for i in (0, 2)).item()
    for reference in (earlier, tmp_path / "adapter.safetensors", model):
        prior = lora_prior(later, 0.1, reference=reference)
        assert prior.penalty().item() == pytest.approx(expected, rel=1e-10)
    assert "centred on adapter.safetensors" in lora_prior(later, 0.1, reference=tmp_path / "adapter.safetensors")[
        "0.lora_A"
    ].describe()  # fmt: skip
    with pytest.raises(br.ReferenceMismatchError, match=r"it lacks 2\.lora_A"):
        lora_prior(later, 0.1, reference={n: t for n, t in earlier.items() if n != "2.lora_A"})


def test_a_start_other_than_zero_is_said():
    assert not lora_prior(network(head=False), 0.1).notes
    model = moved(network(head=False))
    assert "have an update already" in lora_prior(model, 0.1).notes[0]
    assert not any("update already" in note for note in lora_prior(model, 0.1, reference=model).notes)


def test_a_lonely_factor_is_refused():
    model = network(head=False)
    del model[0].lora_B
    with pytest.raises(br.InvalidArgumentError, match=r"expected 0\.lora_B beside 0\.lora_A, got none"):
        lora_prior(model, 0.1)


def test_adapters_that_are_not_trained_are_left_alone():
    model = network(head=False)
    model[0].lora_A.requires_grad_(False), model[0].lora_B.requires_grad_(False)
    prior = lora_prior(model, 0.1)
    assert next(e.prior for e in prior if e.name == "0.lora_A") is None
    assert prior["2.lora_A"].family == "AdapterGaussian"
    # One frozen factor (LoRA-FA) leaves a prior on the other.
    model[2].lora_A.requires_grad_(False)
    prior = lora_prior(moved(model), 0.1)
    assert prior.penalty().item() == pytest.approx(explicit(model, {2: 0.1}), rel=1e-12)


@pytest.mark.parametrize("make", [
    lambda groups: torch.optim.SGD(groups, lr=0.002, momentum=0.9),
    lambda groups: torch.optim.AdamW(groups, lr=0.02, weight_decay=0.0),
    lambda groups: torch.optim.NAdam(groups, lr=0.02),
])  # fmt: skip
def test_training_follows_the_explicit_objective(make):
    one, other = network(), network()
    X, y = torch.randn(12, 5).double(), torch.randint(0, 2, (12,))
    prior = lora_prior(one, 0.1, head=br.Gaussian(1.0))
    first, second = make(prior.param_groups()), make([p for p in other.parameters() if p.requires_grad])
    br.attach(first, prior, num_data=12)
    for _ in range(30):
        first.zero_grad(), second.zero_grad()
        nn.functional.cross_entropy(one(X), y).backward()
        first.step()
        penalty = sum(0.5 * (other[i].update() / 0.1).square().sum() for i in (0, 2))
        penalty = penalty + 0.5 * other[3].weight.square().sum()
        (nn.functional.cross_entropy(other(X), y) + penalty / 12).backward()
        second.step()
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.isfinite(mine).all()
        assert torch.allclose(mine, theirs, rtol=1e-8, atol=1e-10)


def test_the_trainer_takes_it():
    model = network()
    X, y = torch.randn(40, 5).double(), torch.randint(0, 2, (40,))
    prior = lora_prior(model, 0.1, head=br.Gaussian(1.0))
    trainer = br.MAPTrainer(model, prior, br.likelihoods.Categorical(), max_epochs=3, batch_size=8, progress=False)
    result = trainer.fit((X, y))
    assert result.history.column("running_objective")[-1] < result.history.column("running_objective")[0]
    assert model[0].lora_B.abs().max() > 0


# -- what a review found ------------------------------------------------------------------------------------------


def test_named_factors_come_beside_those_found():
    model = moved(network(head=False))
    model[1] = nn.Linear(6, 6).double().requires_grad_(False)
    model[1].down, model[1].up = nn.Parameter(torch.randn(2, 6).double()), nn.Parameter(torch.randn(6, 2).double())
    with pytest.raises(br.CoverageError, match=r"head: 1\.down, 1\.up are trained beside"):
        lora_prior(model, 0.1)
    prior = lora_prior(model, 0.1, factors=[("1.up", "1.down")], scaling={"1.up": 2.0})
    expected = explicit(model, {0: 0.1, 2: 0.1}) + 0.5 * (2.0 * model[1].up @ model[1].down / 0.1).square().sum().item()
    assert prior.penalty().item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(br.PatternError, match="scaling 'x': expected a glob that decides for an adapter"):
        lora_prior(model, 0.1, factors=[("1.up", "1.down")], scaling={"1.up": 2.0, "x": 1.0})


def test_shared_and_lonely_factors_are_refused():
    model = network()
    model[2] = LoRALinear(nn.Linear(6, 5).double())
    model[2].lora_A = model[0].lora_A
    with pytest.raises(br.UnsupportedError, match=r"0\.lora_A is shared by 2 adapters"):
        lora_prior(model, 0.1, head=br.Gaussian(1.0))
    model = network()
    del model[0].lora_A
    with pytest.raises(br.InvalidArgumentError, match=r"0\.lora_B is a factor without a partner"):
        lora_prior(model, 0.1, head=br.Gaussian(1.0))


def test_a_prior_of_the_whole_model_gives_the_scales():
    plain = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    X, y = torch.randn(30, 5).double(), torch.randint(0, 4, (30,))
    learned = br.transfer.fisher_information(plain, (X, y), br.likelihoods.Categorical())
    about = br.transfer.ewc_prior(plain, learned, prior_precision=4.0)
    model = moved(network(head=False))
    expected = explicit(model, {0: about["0.weight"].scale, 2: about["2.weight"].scale})
    assert lora_prior(model, about).penalty().item() == pytest.approx(expected, rel=1e-12)
    mean, variance = ({n: p.detach() ** k for n, p in plain.named_parameters()} for k in (1, 2))
    columns = {n: torch.randn(*p.shape, 3).double() for n, p in plain.named_parameters()}
    low_rank = br.ModelPrior(plain, {"*": br.transfer.low_rank_prior(mean, variance, columns)})
    widths = {i: low_rank[f"{i}.weight"].variance().sqrt() for i in (0, 2)}
    assert lora_prior(model, low_rank).penalty().item() == pytest.approx(explicit(model, widths), rel=1e-12)


def test_the_centre_is_an_update_whatever_its_rank_and_scaling():
    earlier, later = moved(network(head=False)), moved(network(head=False))
    earlier[0].scaling = 0.7
    earlier[2] = moved(LoRALinear(nn.Linear(6, 4).double(), 2, 1.9, seed=5))
    expected = sum(0.5 * ((later[i].update() - earlier[i].update()) / 0.1).square().sum() for i in (0, 2)).item()
    prior = lora_prior(later, 0.1, reference=earlier)
    assert prior.penalty().item() == pytest.approx(expected, rel=1e-10)
    assert "scaled from 0.7 to 3, 1.9 to 0.5, are those of the same update" in prior.notes[0]
    # Gradients, too, where the ranks differ.
    explicit_one = sum(0.5 * ((later[i].update() - earlier[i].update().detach()) / 0.1).square().sum() for i in (0, 2))
    held = [later[0].lora_A, later[2].lora_A, later[2].lora_B]
    for mine, theirs in zip(
        torch.autograd.grad(prior.penalty(), held), torch.autograd.grad(explicit_one, held), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9)
    # A state dict does not say its scaling.
    state = {n: p.detach() for n, p in earlier.named_parameters() if n.startswith("0.lora")}
    assumed = lora_prior(later, 0.1, reference=state)
    assert "does not say its scaling" in assumed.notes[0]
    assert "no update of 2.weight: about 0 there" in assumed.notes[1]
    said = lora_prior(later, 0.1, reference=state, reference_scaling=0.7)
    first = 0.5 * ((later[0].update() - earlier[0].update()) / 0.1).square().sum()
    expected = first.item() + explicit(later, {2: 0.1})
    assert said.penalty().item() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(br.InvalidArgumentError, match="expected with reference="):
        lora_prior(later, 0.1, rename={"a": "b"})
    renamed = nn.ModuleDict({"x": earlier[0]})
    again = lora_prior(later, 0.1, reference=renamed, rename={"x.*": "0.*"})
    assert again.penalty().item() == pytest.approx(expected, rel=1e-10)
    with pytest.raises(br.ReferenceMismatchError, match=r"has none of 0\.lora_B"):
        lora_prior(later, 0.1, reference=renamed)


def test_names_are_those_of_the_model_without_adapters():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.base_model = nn.Module()
            self.base_model.model = moved(network(head=False))

    model, each = Wrapped(), 0.1 + torch.rand(6, 5).double()
    outer = nn.ModuleDict({"backbone": model})
    expected = explicit(model.base_model.model, {0: each, 2: 0.3})
    for name in ("backbone.0.weight", "backbone.base_model.model.0.weight", "backbone.0.base_layer.weight"):
        assert lora_prior(outer, {name: each, "*": 0.3}).penalty().item() == pytest.approx(expected, rel=1e-12)


def test_a_model_without_memory_gets_its_prior():
    with torch.device("meta"):
        model = network(head=False)
    prior = lora_prior(model, 0.1)
    assert not prior.notes
    assert prior["0.lora_A"].family == "AdapterGaussian"

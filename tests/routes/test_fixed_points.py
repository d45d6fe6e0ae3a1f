"""A weight on its centre, without a gradient from data, stays there to the bit."""

import copy

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.routes.pulls import differences
from tests.sampling import cells
from tests.versions import muon

OPTIMIZERS = {
    "SGD": lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9),
    "Adam": lambda g: torch.optim.Adam(g, lr=0.1),
    "AdamW": lambda g: torch.optim.AdamW(g, lr=0.1, weight_decay=0.0),
    "AdamW, fused": lambda g: torch.optim.AdamW(g, lr=0.1, weight_decay=0.0, fused=True),
    "NAdam": lambda g: torch.optim.NAdam(g, lr=0.1),
    "RAdam": lambda g: torch.optim.RAdam(g, lr=0.1),
    "Adagrad": lambda g: torch.optim.Adagrad(g, lr=0.1),
    "RMSprop": lambda g: torch.optim.RMSprop(g, lr=0.1),
    "Adamax": lambda g: torch.optim.Adamax(g, lr=0.1),
    "Adadelta": lambda g: torch.optim.Adadelta(g, lr=0.1),
    "Rprop": lambda g: torch.optim.Rprop(g, lr=0.1),
    "ASGD": lambda g: torch.optim.ASGD(g, lr=0.1, lambd=0.0),
    "Adafactor": lambda g: torch.optim.Adafactor(g, lr=0.1),
}
CENTRED = {
    "Gaussian": lambda reference: br.Gaussian.centered_at(reference, scale=0.05),
    "one std each": lambda reference: br.Gaussian.centered_at(reference, scale=torch.full((1,), 0.05)),
    "Student-t": lambda reference: br.StudentT.centered_at(reference, df=3.0, scale=0.05),
    "mixture": lambda reference: br.ScaleMixture.centered_at(
        reference, weights=torch.tensor([0.5, 0.5]), scales=torch.tensor([0.01, 0.3])
    ),
    "fan-in": lambda reference: br.FanInGaussian.he().with_loc(br.load_reference(reference)),
}


class Three(nn.Module):
    """A small, a large and a transposed matrix: those that go together, in pieces, and as they are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.small, self.large = nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(300, 500))
        self.turned = nn.Parameter(torch.randn(300, 400).t())


def stays(optimizer, prior_of, dtype=torch.float32, num_data=1234, *, ulps=0):
    model = Three().to(dtype)
    reference = copy.deepcopy(model)
    prior = br.ModelPrior(model, {"*": prior_of(reference)})
    made = optimizer(prior.param_groups())
    handle = br.attach(made, prior, num_data=num_data)
    with torch.no_grad():
        model.small[:3] += 0.5  # rows that are not on their centre, beside those that are
    for _ in range(5):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        made.step()
    on = [(model.small[3:], reference.small[3:]), (model.large, reference.large), (model.turned, reference.turned)]
    for value, centre in on:
        limit = ulps * torch.finfo(dtype).eps * centre.detach().abs()
        assert bool(((value - centre).detach().abs() <= limit).all())
    assert not torch.equal(model.small[:3], reference.small[:3] + 0.5)
    return handle


@pytest.mark.parametrize(
    ("name", "family"), cells(OPTIMIZERS.keys(), CENTRED.keys(), keep=lambda o, f: f == 0 or o in (0, 2))
)
def test_a_weight_on_its_centre_stays_there_to_the_bit(name, family):
    stays(OPTIMIZERS[name], CENTRED[family], ulps=1 if name == "SGD" else 0)


def test_also_in_pieces(monkeypatch):
    monkeypatch.setattr(differences, "_PIECE", 1000)
    stays(OPTIMIZERS["AdamW"], CENTRED["Gaussian"])


# Adam's own eps is 0 in float16, so that a gradient of 0 makes NaN there with no prior at all.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("Adam", torch.float64), ("Adam", torch.bfloat16), ("AdamW", torch.bfloat16), ("SGD", torch.float16)],
)
@pytest.mark.filterwarnings("ignore::bayesreg.RoundingWarning")
def test_in_every_dtype(name, dtype):
    stays(OPTIMIZERS[name], CENTRED["Gaussian"], dtype)


@pytest.mark.slow
@muon
def test_muon_makes_no_step_of_a_rounding_error():
    stays(lambda g: torch.optim.Muon(g, lr=0.1, weight_decay=0.0), CENTRED["Gaussian"])


def test_a_reference_in_more_digits_than_the_weights_is_rounded_to_theirs():
    model = Three()
    reference = copy.deepcopy(model)
    model.to(torch.bfloat16)
    prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(reference, scale=0.05)})
    assert "rounded to the weights' own bfloat16" in str(prior.describe())
    optimizer = torch.optim.Adam(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=1234)
    before = model.large.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model.large.detach(), before)


def test_a_centre_that_is_a_number_is_a_fixed_point_too():
    model = nn.LayerNorm(4)
    with torch.no_grad():
        model.weight.fill_(0.7)
    prior = br.ModelPrior(model, {"weight": br.Gaussian(0.03, loc=model.weight[0].item()), "bias": br.Flat()})
    optimizer = torch.optim.Adam(prior.param_groups(), lr=0.1)
    br.attach(optimizer, prior, num_data=77)
    before = model.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model.weight.detach(), before)


@pytest.mark.parametrize("small", [True, False])
def test_the_pieces_of_large_weights_are_put_together_right(monkeypatch, small):
    if small:
        monkeypatch.setattr(differences, "_PIECE", 1000)
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (300, 500), (64,), (90, 91), (4,)]
    grads, values, locs = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(3))
    locs[2] = torch.tensor(0.3)
    values[3] = values[3].t().contiguous().t()
    wanted = [grad + 0.7 * (value - loc) for grad, value, loc in zip(grads, values, locs, strict=True)]
    values[1][:100] = locs[1][:100]
    wanted[1] = grads[1] + 0.7 * (values[1] - locs[1])
    differences.add_differences_(grads, values, locs, 0.7)
    for grad, right in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, right, rtol=1e-6, atol=1e-6)


def test_unused_rows_of_an_embedding_stay_while_used_ones_learn():
    torch.manual_seed(0)
    model = nn.Embedding(100, 8)
    reference = copy.deepcopy(model)
    prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(reference, scale=0.02)})
    optimizer = torch.optim.AdamW(prior.param_groups(), lr=1e-2, weight_decay=0.0)
    br.attach(optimizer, prior, num_data=5000)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.arange(10)).square().mean().backward()
        optimizer.step()
    assert torch.equal(model.weight[10:], reference.weight[10:])
    assert not torch.equal(model.weight[:10], reference.weight[:10])

"""The published methods: what each covers, its penalty term by term, and what describe() lists."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import bayesreg as br

SHAPES = {
    "weights": {"0.weight", "3.weight"},
    "all": {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"},
}


def net(classes=3):
    torch.manual_seed(classes)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def offsets(model, pretrained):
    """Return w − w⁰ of the body, w of the head."""
    old = pretrained.state_dict()
    return {n: p.detach() - (0.0 if n.startswith("3.") else old[n]) for n, p in model.named_parameters()}


@pytest.mark.parametrize("covered", ["weights", "all"])
def test_l2_sp_is_two_half_squares(covered):
    model, pretrained = net(3), net(10)
    prior = br.transfer.l2_sp(model, pretrained, body_scale=0.05, head_scale=0.7, new="3.*", covered=covered)
    scales = {n: 0.7 if n.startswith("3.") else 0.05 for n in SHAPES[covered]}
    moved = offsets(model, pretrained)
    expected = sum(0.5 * (moved[n].double() / scale).square().sum() for n, scale in scales.items())
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-6)
    assert {e.name for e in prior if not isinstance(e.prior, br.Flat)} == SHAPES[covered]


def test_published_coefficients_become_scales():
    """α = 0.1 and β = 0.01 with the ½ and a mean loss over n = 800: the training loss of the authors' code."""
    model, pretrained, n = net(3).double(), net(10).double(), 800
    scales = [br.weight_decay_to_variance(value, n) ** 0.5 for value in (0.1, 0.01)]
    prior = br.transfer.l2_sp(model, pretrained, body_scale=scales[0], head_scale=scales[1], new="3.*")
    moved = offsets(model, pretrained)
    theirs = 0.1 * 0.5 * moved["0.weight"].square().sum() + 0.01 * 0.5 * moved["3.weight"].square().sum()
    assert (prior.penalty() / n).item() == pytest.approx(theirs.item(), rel=1e-12)


@pytest.mark.parametrize("covered", ["weights", "all"])
def test_l1_sp_is_l1_on_the_body_and_l2_on_the_head(covered):
    model, pretrained = net(3), net(10)
    prior = br.transfer.l1_sp(model, pretrained, body_scale=0.05, head_scale=0.7, new="3.*", covered=covered)
    moved = offsets(model, pretrained)
    expected = sum(
        0.5 * (moved[n] / 0.7).square().sum() if n.startswith("3.") else (moved[n] / 0.05).abs().sum()
        for n in SHAPES[covered]
    )
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("group", ["row", "tensor"])
def test_group_lasso_sp_weighs_groups_by_the_root_of_their_size(group):
    model, pretrained = net(3), net(10)
    prior = br.transfer.group_lasso_sp(model, pretrained, rate=2.0, head_scale=0.7, new="3.*", group=group)
    moved = offsets(model, pretrained)
    kernel = moved["0.weight"].flatten(1) if group == "row" else moved["0.weight"].reshape(1, -1)
    expected = (
        2.0 * math.sqrt(kernel.shape[1]) * kernel.norm(dim=1).sum() + 0.5 * (moved["3.weight"] / 0.7).square().sum()
    )
    assert prior.penalty().item() == pytest.approx(expected.item(), rel=1e-5)


def test_group_lasso_sp_leaves_whole_channels_at_their_pretrained_values():
    torch.manual_seed(0)
    pretrained, model = nn.Linear(20, 6).double(), nn.Linear(20, 6).double()
    X = torch.randn(50, 20, dtype=torch.float64)
    truth = pretrained.weight.detach().clone()
    truth[1] += 1.0
    y = X @ truth.T + pretrained.bias.detach()
    prior = br.transfer.group_lasso_sp(model, pretrained, rate=2.0)
    trainer = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(1.0), optimizer="proximal", progress=False)
    trainer.fit((X, y))
    moved = (model.weight != pretrained.weight).any(1)
    assert moved.tolist() == [False, True, False, False, False, False]


def test_the_isotropic_prior_is_one_scale_over_everything():
    model, pretrained = net(3), net(10)
    prior = br.transfer.l2_sp(model, pretrained, body_scale=0.2, head_scale=0.2, new="3.*", covered="all")
    flat = torch.cat([o.flatten() for o in offsets(model, pretrained).values()])
    expected = torch.distributions.Normal(0.0, 0.2).log_prob(flat).sum()
    assert prior.log_prob().item() == pytest.approx(expected.item(), rel=1e-5)


# -- depth ---------------------------------------------------------------------------------------------


def test_depth_grades_layers_in_order_and_norms_with_them():
    model = net(3)
    scales = br.transfer.depth_graded(model, first=0.01, last=0.1)
    assert [(str(key), value) for key, value in scales.items()] == [("layer 0", 0.01), ("layer 3", 0.1)]
    prior = br.transfer.l2_sp(model, net(3), body_scale=scales, covered="all")
    assert float(prior["1.weight"].scale) == 0.01
    assert float(prior["3.bias"].scale) == 0.1


def test_depth_spacings():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    geometric = list(br.transfer.depth_graded(model, first=0.01, last=0.08).values())
    assert geometric == pytest.approx([0.01, 0.02, 0.04, 0.08])
    # L2-SP-k of Li et al.: the precision of layer i is (L − i) times that of the last.
    graded = br.transfer.depth_graded(model, first=0.08 / math.sqrt(4), last=0.08, spacing="precision")
    assert [value**-2 * 0.08**2 for value in graded.values()] == pytest.approx([4.0, 3.0, 2.0, 1.0])
    new = br.transfer.depth_graded(model, first=0.01, last=0.04, new="3.*")
    assert list(map(str, new)) == ["layer 0", "layer 1", "layer 2"]
    named = br.transfer.depth_graded(model, first=0.01, last=0.04, layers=["3.*", "0.*"])
    assert [(str(key), value) for key, value in named.items()] == [("'3.*'", 0.01), ("'0.*'", 0.04)]
    assert list(br.transfer.depth_graded(nn.Linear(2, 2), first=0.1, last=0.1).values()) == [0.1]
    with pytest.raises(br.InvalidArgumentError, match=r"expected the same scale for one layer \(layer \(root\)\)"):
        br.transfer.depth_graded(nn.Linear(2, 2), first=0.01, last=0.1)


def test_depth_refuses():
    model = net()
    with pytest.raises(br.InvalidArgumentError, match=r"spacing: expected one of .* got 'linear'"):
        br.transfer.depth_graded(model, first=0.1, last=0.2, spacing="linear")
    with pytest.raises(br.InvalidArgumentError, match="first"):
        br.transfer.depth_graded(model, first=0.0, last=0.2)
    with pytest.raises(br.InvalidArgumentError, match="no layer with a weight"):
        br.transfer.depth_graded(nn.BatchNorm1d(2), first=0.1, last=0.2)


# -- new, resized, renamed, frozen, tied: decided by arguments, listed by describe() -----------------------


class Language(nn.Module):
    def __init__(self, words, classes=None):
        super().__init__()
        self.embed = nn.Embedding(words, 4)
        self.body = nn.Linear(4, 4)
        self.out = nn.Linear(4, words, bias=False)
        self.out.weight = self.embed.weight
        if classes is not None:
            self.head = nn.Linear(4, classes)


def test_everything_is_decided_by_an_argument_and_listed():
    torch.manual_seed(0)
    old, model = Language(5), Language(8, classes=3)
    model.body.bias.requires_grad_(False)
    state = {f"bert.{n}": t for n, t in old.state_dict().items()} | {
        "bert.pooler": torch.zeros(2),
        "cls": torch.zeros(1),
    }
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.transfer.l2_sp(model, state, body_scale=0.1)
    for name in ("embed.weight", "body.weight", "head.weight"):
        assert f"missing {name}" in str(caught.value)
    rename = {"bert.*": "*", "cls": None}
    reference = br.load_reference(state, rename=rename, extra="ignore")
    left = br.transfer.load_into(model, reference, new="head.*", resized="embed.*")
    assert left == ["embed.weight", "head.weight", "head.bias"]
    assert torch.equal(model.embed.weight[:5], old.embed.weight)
    prior = br.transfer.l2_sp(
        model, reference, body_scale=0.1, head_scale=0.5, new="head.*", resized="embed.*", covered="all"
    )
    words = str(prior.describe())
    for said in (
        "resized from (5, 4), elsewhere Gaussian, std 0.5, centred on 0",
        "renamed: bert.embed.weight -> embed.weight",
        "left out: cls",
        "not in it, with a prior of their own: head.weight, head.bias",
        "ignored, as the model has no place for them: pooler",
        "frozen, not counted",
        "Tied, counted once: embed.weight = out.weight",
    ):
        assert said in words
    rows = model.embed.weight.detach()
    expected = torch.distributions.Normal(0.0, 0.5).log_prob(rows[5:]).sum()
    expected += torch.distributions.Normal(old.embed.weight.detach(), 0.1).log_prob(rows[:5]).sum()
    assert prior["embed.weight"].log_prob(model.embed.weight).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("family", "beyond"),
    [
        (br.Gaussian(0.1), br.Gaussian(0.5)),
        (br.Laplace(0.1), br.Laplace(0.5)),
        (br.StudentT(4.0, 0.1), br.StudentT(7.0, 0.5)),
        (br.GroupLaplace(3.0), br.GroupLaplace(1.0)),
    ],
)
@pytest.mark.parametrize("old", [(3, 4), (8, 4), (3, 6), (8, 2), (5, 4)])
def test_resized_is_two_densities_side_by_side(family, beyond, old):
    """Rows and columns more or fewer: the elements that both have are about the reference, the rest about 0."""
    if isinstance(family, br.GroupLaplace) and old[1] < 4:
        pytest.skip("a group that is half new has no rate of its own")
    torch.manual_seed(0)
    reference, model = {"weight": torch.randn(old)}, nn.Linear(4, 5, bias=False)
    prior = br.ModelPrior(model, {"*": family.with_loc(br.load_reference(reference)).with_resized(beyond)})
    value, common = model.weight.detach(), tuple(slice(0, min(a, b)) for a, b in zip(old, (5, 4), strict=True))
    both = torch.zeros(5, 4, dtype=torch.bool)
    both[common] = True
    shift = torch.zeros(5, 4)
    shift[common] = reference["weight"][common]
    if isinstance(family, br.GroupLaplace):
        rows = both.all(1)
        expected = family.log_prob((value - shift)[rows]) + beyond.log_prob(value[~rows])
    else:
        expected = family.log_prob((value - shift)[both]) + beyond.log_prob(value[~both])
    assert prior.log_prob().item() == pytest.approx(expected.item(), rel=1e-5)


def test_resized_trains_and_survives_a_file(tmp_path):
    torch.manual_seed(0)
    model, reference = nn.Linear(4, 5, bias=False).double(), {"weight": torch.randn(3, 4, dtype=torch.float64)}
    prior = br.transfer.l2_sp(model, reference, body_scale=1e-3, head_scale=1e-3, resized="weight")
    data = (torch.randn(20, 4, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64))
    trainer = br.MAPTrainer(model, prior, br.likelihoods.Gaussian(1.0), optimizer="lbfgs", progress=False)
    assert trainer.fit(data).converged
    assert (model.weight[:3] - reference["weight"]).abs().max() < 1e-3
    assert model.weight[3:].abs().max() < 1e-3
    prior.save(tmp_path / "p.safetensors")
    again = br.ModelPrior.load(tmp_path / "p.safetensors", model)
    assert torch.equal(again.log_prob(), prior.log_prob())
    assert str(again.describe()) == str(prior.describe())


def test_arguments_that_do_not_go_together():
    model, pretrained = net(3), net(10)
    cases = [
        ({"body_scale": 0.1, "new": "3.*"}, "expected head_scale= with it"),
        ({"body_scale": 0.1, "covered": "biases"}, "covered: expected one of 'weights', 'all', got 'biases'"),
        ({"body_scale": -0.1, "new": "3.*", "head_scale": 1.0}, "scale"),
    ]
    for arguments, message in cases:
        with pytest.raises(br.InvalidArgumentError, match=message):
            br.transfer.l2_sp(model, pretrained, **arguments)
    with pytest.raises(br.InvalidArgumentError, match="new, head: expected both or none"):
        br.transfer.centered_prior(model, pretrained, br.Gaussian(0.1), head=br.Gaussian(1.0))
    with pytest.raises(br.InvalidArgumentError, match=r"expected priors with a centre, or br\.Flat\(\), got Uniform"):
        br.transfer.centered_prior(model, pretrained, br.Uniform(-1.0, 1.0))
    with pytest.raises(br.InvalidArgumentError, match="expected priors about 0, which the reference replaces"):
        br.transfer.centered_prior(model, pretrained, br.Gaussian(0.1, loc=1.0))
    for new in ("hed.*", ["3.*", "hed.*"]):
        with pytest.raises(br.PatternError, match=r"new 'hed\.\*': expected a rule that matches a parameter"):
            br.transfer.l2_sp(model, pretrained, body_scale=0.1, head_scale=1.0, new=new)
    with pytest.raises(br.PatternError, match=r"resized 'emb\.\*': expected a rule that matches a parameter"):
        br.transfer.l2_sp(model, pretrained, body_scale=0.1, head_scale=1.0, resized="emb.*")
    with pytest.raises(br.InvalidArgumentError, match="resized: expected a prior of the same family"):
        br.Gaussian.centered_at(pretrained, 0.1, resized=br.Laplace(0.1))
    with pytest.raises(br.InvalidArgumentError, match="expected fixed numbers as hyper-parameters"):
        br.Gaussian.centered_at(pretrained, 0.1, resized=br.Gaussian(torch.ones(3)))
    matrix = br.MatrixGaussian(torch.eye(2), torch.eye(2))
    with pytest.raises(br.InvalidArgumentError, match="MatrixGaussian is one density of all elements"):
        matrix.with_resized(matrix)


# -- the start -----------------------------------------------------------------------------------------


def test_load_into_copies_buffers_and_keeps_new_layers():
    model, pretrained = net(3), net(10)
    pretrained[1].running_mean.fill_(3.0)
    head = model[3].weight.detach().clone()
    assert br.transfer.load_into(model, pretrained, new="3.*") == ["3.weight", "3.bias"]
    assert model[1].running_mean.eq(3.0).all()
    assert torch.equal(model[0].weight, pretrained[0].weight)
    assert torch.equal(model[3].weight, head)


def test_several_new_layers():
    model, pretrained = net(3), net(10)
    new = ["1.*", "3.*"]
    left = br.transfer.load_into(model, pretrained, new=new)
    assert left == [
        "1.weight", "1.bias", "3.weight", "3.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    ]  # fmt: skip
    prior = br.transfer.l2_sp(model, pretrained, body_scale=0.1, head_scale=1.0, new=new, covered="all")
    assert [e.name for e in prior if "centred on 0" in e.prior.describe()] == left[:4]
    scales = br.transfer.depth_graded(model, first=0.1, last=0.1, new=new)
    assert list(map(str, scales)) == ["layer 0"]


def test_load_into_changes_nothing_where_something_does_not_fit():
    model, pretrained = net(3), net(10)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    state = pretrained.state_dict()
    del state["1.running_var"]
    state["9.weight"] = torch.zeros(1)
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.transfer.load_into(model, state)
    for said in (
        "missing 1.running_var", "3.weight has shape (10, 4), expected (3, 4)", "extra 9.weight", "which is unchanged",
    ):  # fmt: skip
        assert said in str(caught.value)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with torch.device("meta"):
        empty = net(10)
    with pytest.raises(br.ReferenceMismatchError, match=r"0\.weight of the model is on the meta device"):
        br.transfer.load_into(empty, pretrained)
    state = pretrained.state_dict() | {"0.bias": torch.zeros(4, dtype=torch.int32)}
    with pytest.raises(br.ReferenceMismatchError, match=r"0\.bias has dtype int32"):
        br.transfer.load_into(net(10), state)


def test_load_into_understands_tied_and_old_files():
    old, model = Language(5), Language(5)
    state = old.state_dict()
    del state["out.weight"]
    assert br.transfer.load_into(model, state) == []
    assert torch.equal(model.out.weight, old.embed.weight)
    state["out.weight"] = torch.zeros(5, 4)
    with pytest.raises(br.ReferenceMismatchError, match="one tied parameter of the model, with different values"):
        br.transfer.load_into(model, state)
    # A file from before torch counted batches.
    state = net().state_dict()
    del state["1.num_batches_tracked"]
    assert br.transfer.load_into(net(), state) == ["1.num_batches_tracked"]


def test_l1_sp_with_an_embedding_of_more_rows():
    model, old = nn.Embedding(7, 2), nn.Embedding(5, 2)
    prior = br.transfer.l1_sp(model, old, body_scale=0.1, resized="weight", resized_scale=0.5)
    rows = model.weight.detach()
    expected = br.Laplace(0.1).log_prob(rows[:5] - old.weight.detach()) + br.Laplace(0.5).log_prob(rows[5:])
    assert prior.log_prob().item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(br.InvalidArgumentError, match="resized: expected resized_scale= with it"):
        br.transfer.l1_sp(model, old, body_scale=0.1, resized="weight")

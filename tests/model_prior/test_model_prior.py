"""ModelPrior: rules, coverage, references, description, sampling, param groups."""

from __future__ import annotations

import copy
import math

import pytest
import scipy.stats
import torch
from torch import nn

import bayesreg as br


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()


def families(prior):
    return {entry.name: None if entry.prior is None else entry.prior.family for entry in prior}


# -- rules ---------------------------------------------------------------------------------------------


def test_first_match_wins():
    prior = br.ModelPrior(net(), {"3.weight": br.Laplace(1.0), br.biases: br.Flat(), "*": br.Gaussian(0.1)})
    assert families(prior) == {
        "0.weight": "Gaussian", "0.bias": "Flat", "1.weight": "Gaussian", "1.bias": "Flat",
        "3.weight": "Laplace", "3.bias": "Flat",
    }  # fmt: skip


def test_one_prior_goes_on_the_weights_and_says_so():
    prior = br.ModelPrior(net(), br.Gaussian(0.1))
    assert families(prior) == {
        "0.weight": "Gaussian", "0.bias": "Flat", "1.weight": "Flat", "1.bias": "Flat",
        "3.weight": "Gaussian", "3.bias": "Flat",
    }  # fmt: skip
    assert "it is on matrices and kernels; biases, norms, other vectors and scalars" in str(prior.describe())


def test_a_glob_that_matches_nothing_names_the_nearest():
    with pytest.raises(br.PatternError, match=r"rule '0\.wieght': expected a glob that matches a parameter, got none; "
                                              r"did you mean '0\.weight'"):  # fmt: skip
        br.ModelPrior(net(), {"0.wieght": br.Flat(), "*": br.Gaussian(1.0)})


def test_selectors_may_match_nothing():
    br.ModelPrior(nn.Linear(2, 2, bias=False), {br.biases: br.Flat(), br.embeddings: br.Flat(), "*": br.Gaussian(1.0)})


def test_a_shadowed_rule_is_refused():
    with pytest.raises(br.PatternError, match=r"rule '3\.\*' can never apply: all it matches is taken by '\*' before"):
        br.ModelPrior(net(), {"*": br.Gaussian(1.0), "3.*": br.Flat()})
    with pytest.raises(br.PatternError, match="rule biases can never apply"):
        br.ModelPrior(net(), {"*": br.Gaussian(1.0), br.biases: br.Flat()})


def test_uncovered_parameters_are_refused():
    with pytest.raises(br.CoverageError, match=r"no rule covers 0\.bias, 1\.bias, 3\.bias; add a rule for them"):
        br.ModelPrior(net(), {"*.weight": br.Gaussian(1.0)})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "rules: expected a prior or a mapping"),
        (None, "rules: expected a prior or a mapping"),
        ({"*": 0.1}, r"rules\['\*'\]: expected a prior such as br\.Gaussian\(0\.1\), got float"),
        ({3: br.Flat()}, "rule: expected a glob"),
    ],
)
def test_what_are_no_rules_is_refused(rules, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        br.ModelPrior(net(), rules)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(br.InvalidArgumentError, match="ReLU has no parameters"):
        br.ModelPrior(nn.ReLU(), br.Gaussian(1.0))


# -- density -------------------------------------------------------------------------------------------


def test_log_prob_is_the_sum_over_parameters():
    model = net()
    prior = br.ModelPrior(model, {br.biases: br.Laplace(0.5), "*": br.Gaussian(0.3)})
    expected = sum(
        (scipy.stats.laplace(0, 0.5) if name.endswith("bias") else scipy.stats.norm(0, 0.3))
        .logpdf(p.detach().numpy()).sum()
        for name, p in model.named_parameters()
    )  # fmt: skip
    assert prior.log_prob().item() == pytest.approx(expected, rel=1e-13)
    assert (prior.log_constant() - prior.penalty()).item() == pytest.approx(expected, rel=1e-13)


def test_log_prob_has_gradients():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian(0.3))
    prior.log_prob().backward()
    assert torch.allclose(model[0].weight.grad, -model[0].weight.detach() / 0.09)


def test_tied_weights_count_once():
    model = nn.ModuleDict({"in": nn.Embedding(4, 3), "out": nn.Linear(3, 4, bias=False)}).double()
    model["out"].weight = model["in"].weight
    prior = br.ModelPrior(model, br.Gaussian(1.0))
    expected = scipy.stats.norm.logpdf(model["in"].weight.detach().numpy()).sum()
    assert prior.log_prob().item() == pytest.approx(expected)
    assert prior["out.weight"] is prior["in.weight"]
    assert "Tied, counted once: in.weight = out.weight." in str(prior.describe())


def test_frozen_parameters_are_reported_and_skipped():
    model = net()
    model[0].weight.requires_grad_(False)
    prior = br.ModelPrior(model, {"3.*": br.Gaussian(1.0), br.biases | br.norms: br.Flat(), "*": br.Gaussian(0.01)})
    only_head = scipy.stats.norm.logpdf(torch.cat([p.detach().reshape(-1) for p in model[3].parameters()])).sum()
    assert prior.log_prob().item() == pytest.approx(only_head)
    assert "frozen, not counted" in str(prior.describe())
    assert all(model[0].weight is not p for group in prior.param_groups() for p in group["params"])
    model[0].weight.requires_grad_(True)
    assert prior.log_prob().item() != pytest.approx(only_head)


def test_frozen_parameters_need_no_rule():
    model = net()
    for parameter in model[:3].parameters():
        parameter.requires_grad_(False)
    prior = br.ModelPrior(model, {"3.*": br.Gaussian(1.0)})
    assert families(prior)["0.weight"] is None


def test_the_constant_does_not_drown_the_penalty():
    """23 million weights and a float32 loss: the constant alone has a spacing of 2 nats."""
    model = nn.Linear(1000, 1000, bias=False)
    prior = br.ModelPrior(model, br.Gaussian(0.02))
    before = prior.penalty().item()
    with torch.no_grad():
        model.weight[0, 0] += 0.001
    change = (0.001**2 + 2 * 0.001 * (model.weight[0, 0].item() - 0.001)) / (2 * 0.02**2)
    assert prior.penalty().double().item() - before == pytest.approx(change, abs=0.1)
    assert prior.log_constant().dtype == torch.float64


# -- references ----------------------------------------------------------------------------------------


def test_centred_priors_are_bound_to_their_parameters():
    source, model = net(), net()
    prior = br.ModelPrior(model, {"3.*": br.Gaussian(1.0), "*": br.Gaussian.centered_at(source, 0.05)})
    expected = sum(
        scipy.stats.norm((q if not name.startswith("3.") else 0 * q).detach().numpy(),
                         1.0 if name.startswith("3.") else 0.05).logpdf(p.detach().numpy()).sum()
        for (name, p), q in zip(model.named_parameters(), source.parameters(), strict=True)
    )  # fmt: skip
    assert prior.log_prob().item() == pytest.approx(expected, rel=1e-13)
    assert "centred on Sequential" in str(prior.describe())


def test_training_the_source_does_not_move_the_centre():
    model = net()
    prior = br.ModelPrior(model, br.Gaussian.centered_at(model, 0.05))
    with torch.no_grad():
        model[0].weight += 1.0
    assert prior.penalty().item() == pytest.approx(0.5 * model[0].weight.numel() / 0.05**2)


def test_a_reference_that_does_not_fit_lists_everything():
    reference = {
        "0.weight": torch.zeros(4, 9), "0.bias": torch.zeros(4), "1.weight": torch.zeros(4),
        "3.wieght": torch.zeros(2, 4), "3.bias": torch.zeros(2),
    }  # fmt: skip
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.ModelPrior(net(), {"*": br.Gaussian.centered_at(reference, 0.1)})
    message = str(caught.value)
    assert "0.weight has shape (4, 9), expected (4, 3)" in message
    assert "missing 1.bias" in message
    assert "missing 3.weight; did you mean '3.wieght'" in message
    assert "extra 3.wieght, which the model does not have" in message


def test_extra_reference_tensors_can_be_ignored():
    reference = {**net().state_dict(), "fc.weight": torch.zeros(10, 4)}
    with pytest.raises(br.ReferenceMismatchError, match=r"extra fc\.weight"):
        br.ModelPrior(net(), br.Gaussian.centered_at(reference, 0.1))
    br.ModelPrior(net(), br.Gaussian.centered_at(reference, 0.1, extra="ignore"))


def test_buffers_of_the_reference_are_not_extra():
    br.ModelPrior(net(), br.Gaussian.centered_at(net().state_dict(), 0.1))


def test_a_tied_parameter_is_found_under_any_of_its_names():
    model = nn.ModuleDict({"in": nn.Embedding(4, 3), "out": nn.Linear(3, 4, bias=False)})
    model["out"].weight = model["in"].weight
    prior = br.ModelPrior(model, br.Gaussian.centered_at({"out.weight": torch.ones(4, 3)}, 0.1))
    assert torch.equal(prior["in.weight"].loc, torch.ones(4, 3))


# -- description, samples, groups ----------------------------------------------------------------------


def test_describe_gives_the_equivalent_weight_decay():
    prior = br.ModelPrior(net(), {br.biases | br.norms: br.Flat(), "3.*": br.Laplace(0.1), "*": br.Gaussian(0.5)})
    rows = {row["parameters"]: row for row in prior.describe(1000).to_dict()["rows"]}
    assert rows["0.weight"]["equivalent weight_decay"] == "0.004"
    assert rows["3.weight"]["equivalent weight_decay"] == "none; L1 coefficient 0.01"
    assert rows["0.weight"]["std"] == pytest.approx(0.5)
    assert prior.describe(1000, optimizer="adamw").to_dict()["rows"][0]["equivalent weight_decay"] == "none"
    assert len(prior.describe(per_parameter=True).rows) == 6
    assert "<table>" in prior.describe()._repr_html_()


def test_describe_warns_where_no_map_exists():
    flat_scale = br.ModelPrior(net(), br.Gaussian(0.1))
    assert "normalisation scales (1.weight) are flat" in str(flat_scale.describe())
    everything = br.ModelPrior(net(), {br.biases: br.Flat(), "*": br.Gaussian(0.1)})
    assert "No MAP" not in str(everything.describe())


def test_describe_warns_where_weight_norm_makes_a_direction_scale_free():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    assert "Scale-free: 0.weight.original1" in str(br.ModelPrior(model, br.Gaussian(1.0)).describe())
    rules = {"*original1": br.Flat(), br.biases: br.Flat(), "*": br.Gaussian(1.0)}
    assert "Scale-free" not in str(br.ModelPrior(model, rules).describe())


def test_priors_follow_a_model_that_is_moved():
    model = net()
    prior = br.ModelPrior(model, {"*": br.Gaussian.centered_at(net(), 0.1)})
    model.to("meta")
    assert prior.penalty().device.type == "meta"


def test_samples_come_from_the_prior_and_flat_parts_stay():
    model = nn.Linear(200, 200)
    bias = model.bias.detach().clone()
    prior = br.ModelPrior(model, br.Laplace(0.3))
    left = prior.sample_(generator=torch.Generator().manual_seed(0))
    assert left == ["bias"]
    assert torch.equal(model.bias, bias)
    assert model.weight.std().item() == pytest.approx(0.3 * math.sqrt(2), rel=0.02)
    draw = model.weight.detach().clone()
    prior.sample_(generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.weight, draw)


def test_groups_join_what_the_optimizer_can_decay_together():
    source = net()
    rules = {br.biases | br.norms: br.Flat(), "0.*": br.Gaussian.centered_at(source, 0.1), "*": br.Gaussian(0.1)}
    prior = br.ModelPrior(net(), rules)
    groups = prior.param_groups()
    assert [len(group["params"]) for group in groups] == [2, 4]
    assert all(group["weight_decay"] == 0.0 for group in groups)


def test_deepcopy_and_module_moves():
    prior = br.ModelPrior(net(), br.Gaussian(0.1))
    again = copy.deepcopy(prior)
    assert again.log_prob().item() == prior.log_prob().item()
    assert prior.to(torch.bfloat16)["0.weight"].scale.item() == 0.1


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(KeyError, match=r"no parameter '0\.weigth' with a prior; did you mean '0\.weight'"):
        br.ModelPrior(net(), br.Gaussian(0.1))["0.weigth"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m: br.ModelPrior(m.parameters(), br.Gaussian(1.0)), r"model: expected a module, got generator"),
        (lambda m: br.ModelPrior(br.Gaussian(1.0), m), r"rules: expected a prior or a mapping.*got"),
        (lambda m: br.ModelPrior(m, torch.distributions.Normal(0.0, 1.0)), r"wrap it: br\.FromDistribution"),
        (lambda m: br.ModelPrior(m, "gaussian(0.1)"), r"br\.prior_from_words\('gaussian\(0\.1\)'\)"),
    ],
)  # fmt: skip
def test_what_is_no_model_or_no_prior_is_answered_with_a_way_on(build, message):
    with pytest.raises(br.InvalidArgumentError, match=message):
        build(torch.nn.Linear(2, 2))


def test_describe_gives_the_range_where_widths_follow_the_shape():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(99, 3))
    table = br.ModelPrior(model, br.GroupLaplace(10.0, "row")).describe(1000).to_dict()["rows"]
    row = next(r for r in table if "0.weight" in r["parameters"])
    assert row["std"] == "0.224 to 1"
    assert row["equivalent weight_decay"] == "none"
    alone = br.ModelPrior(model[0], br.GroupLaplace(10.0, "row")).describe(1000).to_dict()["rows"]
    assert alone[0]["std"] == pytest.approx(5**0.5 / 10)
    assert alone[0]["equivalent weight_decay"] == "none; 0.02 matches its variance"


def test_describe_says_where_prior_and_weights_disagree_the_worst_first():
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 20, bias=False))
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for layer, size in zip(model, (1.0, 1.0, 1e-3, 1.0), strict=True):
            layer.weight.copy_(size * torch.randn(20, 20).sign())
    rules = {br.biases: br.Flat(), "0.*": br.Gaussian(0.1), "1.*": br.Gaussian(0.5), "2.*": br.Laplace(0.1),
             "3.*": br.Gaussian.centered_at(start, scale=1.0, extra="ignore")}  # fmt: skip
    with torch.no_grad():
        model[3].weight.copy_(start["3.weight"] + 5.0)
    notes = [note for note in br.ModelPrior(model, rules).describe().notes if "rms about their centre" in note]
    # Laplace's std is sqrt(2) b, 141 times the weights; then 10 stds, then 5; 2 stds are nothing to speak of.
    assert [note.split(":")[0] for note in notes] == ["2.weight", "0.weight", "3.weight"]
    assert "141 times" in notes[0]
    assert "10.0 prior stds" in notes[1]
    assert "5.0 prior stds" in notes[2]
    # At its start a centred prior has nothing to pull yet: that is no width to warn of.
    fresh = nn.Linear(5, 5)
    at_start = br.ModelPrior(fresh, br.Gaussian.centered_at(fresh, scale=1.0))
    assert not [note for note in at_start.describe().notes if "prior std" in note]

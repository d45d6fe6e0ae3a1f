"""What the transfer methods are given and cannot take is answered in a sentence; notes say what was done."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

import bayesreg as br


def test_python_errors_became_sentences():
    model, state = nn.Linear(3, 2), nn.Linear(3, 2).state_dict()
    for rename, message in [
        ({re.compile("weight"): r"\2"}, "expected a replacement as in re.sub"),
        ({re.compile("weight"): r"\d"}, "expected a replacement as in re.sub"),
    ]:
        with pytest.raises(br.InvalidArgumentError, match=message):
            br.load_reference(state, rename=rename)
    assert "WEIGHT2" not in br.load_reference(state, rename={re.compile("(?i)WEIGHT"): "w"})
    with pytest.raises(br.ReferenceMismatchError, match="weight has the layout sparse_coo"):
        br.load_reference(state | {"weight": torch.eye(3).to_sparse()})
    with pytest.raises(br.InvalidArgumentError, match="the reference is the centre"):
        br.Gaussian.centered_at(model, 0.1, loc=1.0)
    for call in (
        lambda: br.transfer.load_into(nn.LazyLinear(2), state),
        lambda: br.transfer.l2_sp(nn.LazyLinear(2), state, body_scale=0.1),
        lambda: br.ModelPrior(nn.LazyLinear(2), {"*": br.Gaussian.centered_at(state, 0.1)}),
    ):
        with pytest.raises((br.ReferenceMismatchError, br.InvalidArgumentError), match="run one batch"):
            call()
    with pytest.raises(br.ReferenceMismatchError, match="expected 1 dimensions, got a reference of 2"):
        br.Gaussian.centered_at(state, 0.1, resized=br.Gaussian(1.0)).bound_to("weight", torch.zeros(3))
    with torch.device("meta"):
        empty = nn.Linear(3, 2, bias=False)
    low_rank = br.LowRankGaussian(1.0, torch.zeros(2, 3, 1), loc=br.load_reference({"weight": state["weight"]}))
    assert torch.equal(br.ModelPrior(empty, {"*": low_rank})["weight"].loc, state["weight"])
    eight = br.load_reference({"weight": torch.ones(2, 3).to(torch.float8_e4m3fn)})
    assert eight["weight"].dtype == torch.bfloat16


def test_arguments_of_other_types_are_answered():
    model, state = nn.Linear(3, 2), nn.Linear(3, 2).state_dict()
    for call in (lambda m, r: br.transfer.l2_sp(m, r, body_scale=0.1), br.transfer.load_into):
        with pytest.raises(br.InvalidArgumentError, match="expected a module, got str; the reference comes second"):
            call("w.pt", model)
    with pytest.raises(br.InvalidArgumentError, match="resized: expected a mapping from rules to priors, got str"):
        br.transfer.centered_prior(model, state, br.Laplace(0.1), resized="weight")
    with pytest.raises(br.InvalidArgumentError, match=r"likelihood: expected one of .* got function"):
        br.transfer.fisher_information(model, (torch.ones(2, 3), torch.ones(2)), nn.functional.cross_entropy)


def test_a_head_scale_for_nothing_is_refused():
    model = nn.Linear(3, 2)
    with pytest.raises(br.InvalidArgumentError, match="head_scale: expected new= with it"):
        br.transfer.l2_sp(model, model, body_scale=0.1, head_scale=1.0)


def test_notes_say_what_is_so():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    prior = br.transfer.l2_sp(model, copy.deepcopy(model), body_scale=0.1, head_scale=1.0, new="8.*")
    words = str(prior.describe())
    assert "in it, but with a prior of their own: 8.weight." in words
    assert "in it, but flat: 0.bias, 1.bias, 2.bias and 6 more" in words
    prefixed = {f"old.{name}": tensor for name, tensor in model.state_dict().items()}
    reference = br.load_reference(prefixed, rename={"old.*": "*"})
    assert reference.notes == (
        "renamed: old.0.weight -> 0.weight; old.0.bias -> 0.bias; old.1.weight -> 1.weight and 15 more",
    )
    half = br.ModelPrior(
        nn.Linear(2, 2), {"*": br.Gaussian.centered_at(nn.Linear(2, 2).half(), 0.1, storage="bfloat16")}
    )
    assert "kept in bfloat16" not in str(half.describe())
    assert "held as float16" in str(half.describe())


def test_depth_is_of_names_not_of_module_objects():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    graded = br.transfer.depth_graded(model, first=0.01, last=0.1)
    prior = br.transfer.l2_sp(copy.deepcopy(model), model, body_scale=graded)
    assert [float(prior[f"{i}.weight"].scale) for i in (0, 1)] == pytest.approx([0.01, 0.1])

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions, self.body = nn.Parameter(torch.zeros(3, 2)), nn.Linear(2, 2)

    assert list(map(str, br.transfer.depth_graded(Root(), first=0.1, last=0.2))) == ["layer (root)", "layer body"]
    with pytest.raises(br.InvalidArgumentError, match="got layer 1, which new= takes whole"):
        br.transfer.l2_sp(model, model, body_scale=graded, head_scale=1.0, new="1.*")

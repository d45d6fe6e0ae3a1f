"""What an independent reader broke: each was silent, half-done or a bare Python error."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import bayesreg as br


class Delta(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.delta = nn.Parameter(torch.zeros_like(weight))

    def forward(self, weight):
        return weight + self.delta


def adapted():
    model = nn.Linear(3, 2, bias=False)
    parametrize.register_parametrization(model, "weight", Delta(model.weight))
    return model


def test_parameters_of_a_parametrization_are_not_the_weight_that_they_make():
    model, plain = adapted(), nn.Linear(3, 2, bias=False)
    with pytest.raises(br.ReferenceMismatchError, match=r"missing weight\.0\.delta"):
        br.transfer.load_into(model, plain)
    assert br.transfer.load_into(model, plain, new="*.delta") == ["weight.0.delta"]
    assert torch.equal(model.weight, plain.weight)
    prior = br.transfer.l2_sp(model, plain, body_scale=0.1, head_scale=1.0, new="*.delta")
    words = str(prior.describe())
    assert "Tied" not in words
    assert "taken for the tensor behind a parametrization, as it is: weight" in words
    assert prior["weight.0.delta"].describe() == "Gaussian, std 1, centred on 0"


@pytest.mark.parametrize("rows", [1, 4])
def test_the_parts_of_weight_norm_are_not_a_plain_weight(rows):
    model, plain = parametrizations.weight_norm(nn.Linear(rows, 4)), nn.Linear(rows, 4)
    for call in (br.transfer.load_into, lambda m, r: br.transfer.l2_sp(m, r, body_scale=0.1)):
        with pytest.raises(br.ReferenceMismatchError) as caught:
            call(model, plain)
        assert "missing weight.original0" in str(caught.value)
        assert "missing weight.original1" in str(caught.value)
        assert "extra weight" in str(caught.value) or call is not br.transfer.load_into
    br.transfer.load_into(model, parametrizations.weight_norm(nn.Linear(rows, 4)))


def test_values_that_the_weights_cannot_hold():
    model, reference = nn.Linear(3, 2, bias=False).half(), {"weight": torch.full((2, 3), 1e6)}
    before = model.weight.detach().clone()
    for call in (
        lambda: br.transfer.load_into(model, reference),
        lambda: br.transfer.l1_sp(model, reference, body_scale=0.1),
        lambda: br.ModelPrior(model, {"*": br.Laplace.centered_at(reference, 0.1)}),
    ):
        with pytest.raises(br.ReferenceMismatchError, match="weight has values too large for float16"):
            call()
    assert torch.equal(model.weight, before)


def test_a_centre_that_was_rounded_for_its_kink_is_called_so():
    model = nn.Linear(3, 2, bias=False).bfloat16()
    prior = br.transfer.l1_sp(model, {"weight": torch.rand(2, 3)}, body_scale=0.1)
    assert "rounded to the weights' own bfloat16" in str(prior.describe())


@pytest.mark.parametrize("family", [br.Laplace(0.1), br.ElasticNet(1.0, 1.0), br.GroupLaplace(3.0)])
def test_a_model_narrowed_after_the_prior_was_made_reaches_the_kink(family):
    torch.manual_seed(0)
    pretrained, model = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    prior = br.ModelPrior(model, {"*": family.with_loc(br.load_reference(pretrained))})
    model.bfloat16()
    moved = prior["weight"].prox(model.weight.detach(), 1e3)
    assert torch.equal(moved, pretrained.weight.bfloat16())
    assert prior["weight"].penalty(moved).item() == 0.0


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


class Positions(nn.Module):
    def __init__(self, count, persistent=True):
        super().__init__()
        self.embed = nn.Embedding(count, 2)
        self.register_buffer("position_ids", torch.arange(count), persistent=persistent)


def test_buffers_are_decided_on_like_parameters():
    assert br.transfer.load_into(Positions(3, False), Positions(3, False)) == []
    model = Positions(6)
    with pytest.raises(br.ReferenceMismatchError, match=r"position_ids has shape \(4,\), expected \(6,\)"):
        br.transfer.load_into(model, Positions(4), resized="embed.*")
    left = br.transfer.load_into(model, Positions(4), resized="embed.*", new="position_ids")
    assert left == ["embed.weight", "position_ids"]
    assert br.transfer.load_into(model, Positions(4), resized=["embed.*", "position_ids"]) == left
    with pytest.raises(br.ReferenceMismatchError, match=r"position_ids has dtype float32, expected an integer one"):
        br.transfer.load_into(model, Positions(6).state_dict() | {"position_ids": torch.rand(6)})

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.out = nn.BatchNorm1d(2, affine=False), nn.Linear(2, 2)

    body, whole = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), Head())
    for new in ("1.*", Head):
        assert len(br.transfer.load_into(whole, body, new=new)) == 5


def test_a_joint_prior_keeps_what_was_decided_about_its_reference():
    model = nn.Linear(3, 2)
    diag = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    factor = {name: torch.zeros(*p.shape, 1) for name, p in model.named_parameters()}
    state = {**model.state_dict(), "junk": torch.ones(2)}
    with pytest.raises(br.ReferenceMismatchError, match="extra junk"):
        br.ModelPrior(model, {"*": br.LowRankGaussian.centered_at(state, diag, factor)})
    loose = br.LowRankGaussian.centered_at(state, diag, factor, extra="ignore", storage="bfloat16")
    words = str(br.ModelPrior(model, {"*": loose}).describe())
    assert "kept in bfloat16" in words
    assert "ignored, as the model has no place for them: junk" in words


def test_a_reference_made_by_hand_is_a_checked_copy():
    model = nn.Linear(3, 2, bias=False)
    prior = br.transfer.l2_sp(model, br.Reference(dict(model.named_parameters()), "hand"), body_scale=0.1)
    with torch.no_grad():
        model.weight.add_(1.0)
    assert prior.penalty().item() == pytest.approx(300.0, rel=1e-5)
    with pytest.raises(br.ReferenceMismatchError, match="1 of 1 elements NaN"):
        br.Reference({"weight": torch.tensor([float("nan")])}, "x")


def test_a_model_that_cannot_be_written_is_left_alone():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(3))
            with torch.inference_mode():
                self.register_buffer("b", torch.zeros(3))

    model = Two()
    with pytest.raises(br.ReferenceMismatchError, match=r"b of the model was made under torch\.inference_mode"):
        br.transfer.load_into(model, {"a": torch.ones(3), "b": torch.ones(3)})
    assert model.a.eq(0.0).all()
    wide = nn.Linear(3, 1, bias=False)
    wide.weight = nn.Parameter(torch.zeros(1, 1).expand(1, 3))
    with pytest.raises(br.ReferenceMismatchError, match="weight of the model is an expanded tensor"):
        br.transfer.load_into(wide, {"weight": torch.ones(1, 3)})


def test_priors_about_a_module_are_pickled_and_copied():
    prior = br.Gaussian.centered_at(nn.Linear(2, 2), 0.1)
    for again in (pickle.loads(pickle.dumps(prior)), copy.deepcopy(prior)):
        assert torch.equal(again.reference["weight"], prior.reference["weight"])


def test_resized_keeps_the_digits_of_the_model_and_of_the_other_centre():
    reference, model = {"weight": torch.randn(200, 300).double()}, nn.Linear(300, 400, bias=False).double()
    near = br.Gaussian(0.01)
    prior = br.ModelPrior(model, {"*": near.with_loc(br.load_reference(reference)).with_resized(br.Gaussian(1.0))})
    weight = model.weight.detach()
    exact = near.log_prob(weight[:200] - reference["weight"]) + br.Gaussian(1.0).log_prob(weight[200:])
    assert prior.log_prob().item() == pytest.approx(exact.item(), rel=1e-13)
    kept = br.load_reference(reference, storage="bfloat16")
    prior = br.ModelPrior(model, {"*": near.with_loc(kept).with_resized(br.Gaussian(1.0, loc=0.3))})
    assert prior["weight"].loc[300, 0].item() == 0.3


def test_names_that_differ_only_by_wrappers():
    with pytest.raises(br.ReferenceMismatchError, match=r"w and _orig_mod\.w"):
        br.load_reference({"w": torch.zeros(1), "_orig_mod.w": torch.ones(1)})
    assert list(br.load_reference({"my_orig_mod.w": torch.zeros(1)})) == ["my_orig_mod.w"]


def test_with_loc_and_with_resized_keep_the_rest():
    assert float(br.Gaussian(1.0, loc=2.0).with_resized(br.Gaussian(3.0)).loc) == 2.0
    again = br.Gaussian(1.0).with_resized(br.Gaussian(3.0)).with_loc(1.0)
    assert float(again.beyond.scale) == 3.0
    with pytest.raises(br.InvalidArgumentError, match="FanInGaussian is one density"):
        br.FanInGaussian(1.0).with_resized(br.FanInGaussian(2.0))


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


def test_unsound_values_are_listed_with_the_other_mismatches():
    state = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).state_dict()
    state["0.weight"] = torch.full((2, 3), float("nan"))
    state["0.bias"] = torch.zeros(5)
    del state["1.weight"]
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    for call in (br.transfer.load_into, lambda m, r: br.transfer.l2_sp(m, r, body_scale=0.1, covered="all")):
        with pytest.raises(br.ReferenceMismatchError) as caught:
            call(model, state)
        for said in ("0.weight has 6 of 6 elements NaN", "0.bias has shape (5,)", "missing 1.weight"):
            assert said in str(caught.value)


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


def test_a_mapped_reference_may_be_asked_for_twice_and_narrowed(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    reference = br.load_reference(tmp_path / "w.pt", storage="memory_map")
    again = br.load_reference(reference, storage="memory_map")
    assert again["weight"].data_ptr() == reference["weight"].data_ptr()
    assert len(again.notes) == 1
    assert not any("memory-mapped" in note for note in br.load_reference(reference, storage="bfloat16").notes)


def test_a_checkpoint_with_extra_state():
    inner = {"w": torch.zeros(1), "l._extra_state": {"a": 1}}
    with pytest.raises(br.ReferenceMismatchError, match=r"entries that are not tensors: l\._extra_state;"):
        br.load_reference({"model": inner, "epoch": 3})
    assert list(br.load_reference({"model": inner, "epoch": 3}, rename={"l._extra_state": None})) == ["w"]


# -- and what a newcomer stumbled over ----------------------------------------------------------------------


def test_arguments_of_other_types_are_answered():
    model, state = nn.Linear(3, 2), nn.Linear(3, 2).state_dict()
    for call in (lambda m, r: br.transfer.l2_sp(m, r, body_scale=0.1), br.transfer.load_into):
        with pytest.raises(br.InvalidArgumentError, match="expected a module, got str; the reference comes second"):
            call("w.pt", model)
    with pytest.raises(br.InvalidArgumentError, match="resized: expected a mapping from rules to priors, got str"):
        br.transfer.centered_prior(model, state, br.Laplace(0.1), resized="weight")
    with pytest.raises(br.InvalidArgumentError, match=r"likelihood: expected one of .* got function"):
        br.transfer.fisher_information(model, (torch.ones(2, 3), torch.ones(2)), nn.functional.cross_entropy)


def test_l1_sp_with_an_embedding_of_more_rows():
    model, old = nn.Embedding(7, 2), nn.Embedding(5, 2)
    prior = br.transfer.l1_sp(model, old, body_scale=0.1, resized="weight", resized_scale=0.5)
    rows = model.weight.detach()
    expected = br.Laplace(0.1).log_prob(rows[:5] - old.weight.detach()) + br.Laplace(0.5).log_prob(rows[5:])
    assert prior.log_prob().item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(br.InvalidArgumentError, match="resized: expected resized_scale= with it"):
        br.transfer.l1_sp(model, old, body_scale=0.1, resized="weight")


def test_checkpoints_with_two_state_dicts_or_with_one_elsewhere(tmp_path):
    state = nn.Linear(3, 2).state_dict()
    with pytest.raises(br.ReferenceMismatchError, match="got model_state_dict and model; choose one"):
        br.load_reference({"model": state, "model_state_dict": state})
    for rename in (None, {"net.*": "*"}):
        with pytest.raises(br.ReferenceMismatchError, match=r"weights may be in net: torch\.load\(path"):
            br.load_reference({"net": state, "epoch": 3}, rename=rename)
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(br.PriorFileError, match="the file is empty"):
        br.load_reference(tmp_path / "empty.pt")


def test_advice_fits_what_is_wrong():
    model = nn.Sequential(nn.Linear(3, 2))
    damaged = {"0.weight": torch.full((2, 3), float("nan")), "0.bias": torch.zeros(2)}
    for call in (br.transfer.load_into, lambda m, r: br.transfer.l2_sp(m, r, body_scale=0.1)):
        with pytest.raises(br.ReferenceMismatchError, match="6 of 6 elements NaN") as caught:
            call(model, damaged)
        assert "rename=" not in str(caught.value)
    with pytest.raises(br.PatternError, match=r"did you mean '0\.\*'"):
        br.transfer.load_into(model, model, new="0*.x")


def test_what_a_fisher_information_prints():
    model = nn.Linear(3, 2)
    found = br.transfer.fisher_information(
        model, (torch.ones(4, 3), torch.zeros(4).long()), br.likelihoods.Categorical()
    )
    assert repr(found) == "Fisher(expected, diagonal, 8 elements in 2 tensors, 4 examples)"


def test_frozen_elements_are_counted_apart():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert (
        br.ModelPrior(model, br.Gaussian(0.1)).describe().title
        == "Prior over 14 elements in 4 tensors, 8 of them frozen"
    )

"""From a reference to the parameters of a model: what fits, what is decided by the user, what is said."""

from __future__ import annotations

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


class Positions(nn.Module):
    def __init__(self, count, persistent=True):
        super().__init__()
        self.embed = nn.Embedding(count, 2)
        self.register_buffer("position_ids", torch.arange(count), persistent=persistent)


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


def test_a_reference_made_by_hand_is_a_checked_copy():
    model = nn.Linear(3, 2, bias=False)
    prior = br.transfer.l2_sp(model, br.Reference(dict(model.named_parameters()), "hand"), body_scale=0.1)
    with torch.no_grad():
        model.weight.add_(1.0)
    assert prior.penalty().item() == pytest.approx(300.0, rel=1e-5)
    with pytest.raises(br.ReferenceMismatchError, match="1 of 1 elements NaN"):
        br.Reference({"weight": torch.tensor([float("nan")])}, "x")


def test_names_that_differ_only_by_wrappers():
    with pytest.raises(br.ReferenceMismatchError, match=r"w and _orig_mod\.w"):
        br.load_reference({"w": torch.zeros(1), "_orig_mod.w": torch.ones(1)})
    assert list(br.load_reference({"my_orig_mod.w": torch.zeros(1)})) == ["my_orig_mod.w"]


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


def test_frozen_elements_are_counted_apart():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert (
        br.ModelPrior(model, br.Gaussian(0.1)).describe().title
        == "Prior over 14 elements in 4 tensors, 8 of them frozen"
    )

"""Flat statistics of other codes: split by the model's parameters, refused where they do not fit."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import bayesreg as br


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


@pytest.mark.parametrize("as_files", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_split_is_the_order_of_the_parameters(tmp_path, as_files, transposed):
    model, rank = net().double(), 4
    names = [name for name, _ in model.named_parameters() if not name.startswith("3.")]
    size = sum(model.get_parameter(name).numel() for name in names)
    generator = torch.Generator().manual_seed(0)
    mean, variance = (torch.randn(size, generator=generator).double() for _ in range(2))
    rows = torch.randn(rank, size, generator=generator).double()
    given = {"mean": mean, "variance": variance.square() + 0.1, "deviations": rows.T if transposed else rows}
    if as_files:
        for name, tensor in given.items():
            torch.save(tensor, tmp_path / f"{name}.pt")
        given = {name: tmp_path / f"{name}.pt" for name in given}
    found = br.transfer.flat_statistics(model, **given, new="3.*")
    assert all(list(part) == names for part in found)
    assert torch.equal(torch.cat([found[0][name].flatten() for name in names]), mean)
    assert torch.equal(torch.cat([found[2][name].flatten(0, -2) for name in names]).T, rows)
    # The density of the model's weights is that of the flat vector under the authors' covariance.
    scale, epsilon = 3.0, 0.1
    body = br.transfer.low_rank_prior(*found, scale=scale, epsilon=epsilon, convention="shwartz_ziv")
    prior = br.ModelPrior(model, {"3.*": br.Flat(), "*": body})
    covariance = torch.diag(scale * (variance.square() + 0.1) + epsilon) + scale**2 * rows.T @ rows
    exact = torch.distributions.MultivariateNormal(mean, covariance)
    weights = torch.cat([model.get_parameter(name).flatten() for name in names])
    assert prior.log_prob().item() == pytest.approx(exact.log_prob(weights).item(), rel=1e-10)


def test_statistics_of_another_model():
    wrong = {"mean": torch.zeros(5), "variance": torch.zeros(24), "deviations": torch.zeros(2, 7)}
    with pytest.raises(br.ReferenceMismatchError) as caught:
        br.transfer.flat_statistics(net(), **wrong, new="3.*")
    for said in (
        "mean has shape (5,), expected (24,)",
        "deviations have shape (2, 7), expected (K, 24)",
        "named by new=",
    ):
        assert said in str(caught.value)
    assert "variance" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "dict.pt")
    (tmp_path / "bad.pt").write_bytes(b"hello")
    (tmp_path / "code.pt").write_bytes(pickle.dumps(print))
    good = torch.zeros(24)
    for name, message in [
        ("none.pt", "no such file"),
        ("dict.pt", "expected one tensor, got dict"),
        ("bad.pt", "corrupt"),
        ("code.pt", "corrupt"),
    ]:
        with pytest.raises(br.PriorFileError, match=message):
            br.transfer.flat_statistics(
                net(), mean=tmp_path / name, variance=good, deviations=torch.zeros(2, 24), new="3.*"
            )

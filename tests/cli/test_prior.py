"""`bayesreg prior show`: a prior file without its model."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bayesreg as br
from tests.cli.common import answer, refusal


@pytest.fixture
def saved(tmp_path):
    model, pretrained = (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, k)) for k in (2, 5))
    prior = br.transfer.l2_sp(model, pretrained, body_scale=0.1, head_scale=1.0, new="1.*")
    prior.save(tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def test_it_says_who_has_which_prior_and_where_it_comes_from(run, saved):
    found = answer(run, "prior", "show", str(saved))
    assert [row["parameter"] for row in found["rows"]] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert found["rows"][0]["shape"] == "3x4"
    assert found["rows"][0]["prior"] == "Gaussian, std 0.1, centred on Sequential"
    assert found["rows"][2]["rule"] == "'1.*'"
    status, out, _ = run("prior", "show", str(saved))
    assert status == 0
    assert "Reference Sequential: in it, but with a prior of their own: 1.weight." in out
    assert f"Written by bayesreg {br.__version__}, format 1, 2" in out


def test_joint_priors_are_shown_too(run, tmp_path):
    model = nn.Linear(2, 1)
    swag = br.transfer.SWAG(model)
    for _ in range(3):
        nn.init.normal_(model.weight)
        nn.init.normal_(model.bias)
        swag.collect()
    br.ModelPrior(model, {"*": swag.prior()}).save(tmp_path / "swag.safetensors")
    rows = answer(run, "prior", "show", str(tmp_path / "swag.safetensors"))["rows"]
    assert all("low-rank Gaussian of rank 3" in row["prior"] for row in rows)
    assert all("SWAG of 3 snapshots" in row["prior"] for row in rows)


def test_other_files_are_refused(run, tmp_path, saved):
    save_file({"w": torch.zeros(1)}, tmp_path / "weights.safetensors")
    assert "not a prior: ModelPrior.save did not write it" in refusal(
        run, "prior", "show", str(tmp_path / "weights.safetensors")
    )
    (tmp_path / "cut.safetensors").write_bytes(saved.read_bytes()[:60])
    assert "not a readable safetensors file" in refusal(run, "prior", "show", str(tmp_path / "cut.safetensors"))
    assert "no such file" in refusal(run, "prior", "show", str(tmp_path / "none.safetensors"))
    assert "a prior file, no optimizer: bayesreg prior show" in refusal(run, "explain", str(saved), "--num-data", "100")

"""`bayesreg prior show`, `fit` and `convert`: prior files without the model."""

from __future__ import annotations

from pathlib import Path

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


# -- fit and convert ------------------------------------------------------------------------------------------------


@pytest.fixture
def run_of_training(tmp_path):
    """Six checkpoints of a small network, and the same collected in Python."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    swag = br.transfer.SWAG(model, max_rank=3)
    for k in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_file(model.state_dict(), tmp_path / f"step-{k}.safetensors")
        swag.collect()
    return model, swag, [str(tmp_path / f"step-{k}.safetensors") for k in range(6)]


def test_fit_learns_a_prior_from_checkpoints(run, tmp_path, run_of_training):
    model, swag, paths = run_of_training
    out = tmp_path / "prior.safetensors"
    table = answer(
        run, "prior", "fit", *paths, "-o", str(out), "--rank", "3", "--variance-factor", "4", "--epsilon", "1e-4"
    )
    assert {row["parameter"] for row in table["rows"]} == {name for name, _ in model.named_parameters()}
    assert "SWAG of 6 snapshots" in table["rows"][0]["prior"]
    made = br.ModelPrior(model, {"*": swag.prior(scale=4.0, epsilon=1e-4)})
    assert br.ModelPrior.load(out, model).log_prob().item() == pytest.approx(made.log_prob().item(), rel=1e-5)
    answer(run, "prior", "fit", *paths, "-o", str(out), "--rank", "3", "--epsilon", "1e-4", "--only", "0.*")
    made = br.ModelPrior(model[:1], {"*": swag.prior(epsilon=1e-4, only="0.*")})
    assert br.ModelPrior.load(out, model[:1]).log_prob().item() == pytest.approx(made.log_prob().item(), rel=1e-5)


def test_fit_refuses_and_writes_nothing(run, tmp_path, run_of_training):
    _, _, paths = run_of_training
    out = tmp_path / "prior.safetensors"
    assert "two or more" in refusal(run, "prior", "fit", paths[0], "-o", str(out))
    assert "no such file" in refusal(run, "prior", "fit", *paths, str(tmp_path / "gone.pt"), "-o", str(out))
    assert "expected a rule that matches" in refusal(run, "prior", "fit", *paths, "-o", str(out), "--only", "head.*")
    assert "ending in .safetensors" in refusal(run, "prior", "fit", *paths, "-o", str(tmp_path / "prior.pt"))
    save_file({"0.weight": torch.zeros(4, 3)}, tmp_path / "bad.safetensors")
    assert "same names and shapes" in refusal(
        run, "prior", "fit", *paths, str(tmp_path / "bad.safetensors"), "-o", str(out)
    )
    for rank in ("1", "7"):
        assert "--rank: expected 2 to 6" in refusal(run, "prior", "fit", *paths, "-o", str(out), "--rank", rank)
    assert "expected each once" in refusal(run, "prior", "fit", *paths, paths[0], "-o", str(out))
    assert "another file than the source" in refusal(run, "prior", "fit", *paths, "-o", paths[0])
    assert not out.exists()


def test_convert_changes_strength_names_and_parts(run, tmp_path, run_of_training):
    _, swag, paths = run_of_training
    source, out = tmp_path / "prior.safetensors", tmp_path / "out.safetensors"
    answer(run, "prior", "fit", *paths, "-o", str(source), "--rank", "3", "--epsilon", "1e-4")
    before = source.read_bytes()
    table = answer(run, "prior", "convert", str(source), "-o", str(out), "--variance-factor", "25", "--rename",
                   "0.*=body.*", "--only", "body.*")  # fmt: skip
    assert {row["parameter"] for row in table["rows"]} == {"body.weight", "body.bias"}
    assert any("covariance 1·(½·D + 0.0001·I)" in note for note in table["notes"])
    assert "All variances times 25." in table["notes"]
    assert source.read_bytes() == before

    class Target(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 3)

    model = Target()
    mean, variance, deviations = (
        {f"body.{n[2:]}": t for n, t in part.items() if n.startswith("0.")} for part in swag.statistics()
    )
    made = br.transfer.low_rank_prior(mean, variance, deviations, scale=25.0, epsilon=1e-4)
    expected = br.ModelPrior(model, {"*": made}).log_prob().item()
    assert br.ModelPrior.load(out, model).log_prob().item() == pytest.approx(expected, rel=1e-5)
    before = out.read_bytes()
    assert "expected another file than the source" in refusal(run, "prior", "convert", str(out), "-o", str(out))
    assert out.read_bytes() == before


def test_convert_reads_published_statistics(run, tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    size = sum(p.numel() for p in model.parameters())
    flat = {"mean": torch.randn(size), "variance": torch.rand(size), "deviations": torch.randn(5, size)}
    for name, tensor in flat.items():
        torch.save(tensor, tmp_path / f"{name}.pt")
    torch.save(model.state_dict(), tmp_path / "like.pt")
    arguments = ["prior", "convert", str(tmp_path / "mean.pt"), "-o", str(tmp_path / "prior.safetensors"),
                 "--variance", str(tmp_path / "variance.pt"), "--deviations",
                 str(tmp_path / "deviations.pt")]  # fmt: skip
    like = [
        "--like",
        str(tmp_path / "like.pt"),
        "--convention",
        "shwartz_ziv",
        "--variance-factor",
        "10",
        "--epsilon",
        "0.1",
    ]
    answer(run, *arguments, *like)
    parts = br.transfer.flat_statistics(model, **flat)
    made = br.transfer.low_rank_prior(*parts, scale=10.0, epsilon=0.1, convention="shwartz_ziv")
    expected = br.ModelPrior(model, {"*": made}).log_prob().item()
    found = br.ModelPrior.load(tmp_path / "prior.safetensors", model).log_prob().item()
    assert found == pytest.approx(expected, rel=1e-5)
    assert "--like: flat statistics need all of" in refusal(run, *arguments)
    assert "--rename: is for prior files" in refusal(run, *arguments, *like, "--rename", "a=b")
    save_file(model.state_dict(), tmp_path / "like.safetensors")
    assert "do not keep the order" in refusal(run, *arguments, "--like", str(tmp_path / "like.safetensors"))


def test_convert_refuses_what_it_cannot_do(run, tmp_path, saved):
    out = ["-o", str(tmp_path / "out.safetensors")]
    assert "OLD=NEW" in refusal(run, "prior", "convert", str(saved), *out, "--rename", "0.weight")
    assert "expected a glob that matches" in refusal(run, "prior", "convert", str(saved), *out, "--only", "x.*")
    both = refusal(run, "prior", "convert", str(saved), *out, "--only", "0.*", "--only", "typo.*")
    assert "--only 'typo.*'" in both
    assert "are for flat statistics" in refusal(run, "prior", "convert", str(saved), *out, "--epsilon", "1")
    assert "are for flat statistics" in refusal(run, "prior", "convert", str(saved), *out, "--convention", "harvey")
    assert "leaves nothing" in refusal(run, "prior", "convert", str(saved), *out, "--rename", "*=")
    assert "factor: expected a value > 0" in refusal(
        run, "prior", "convert", str(saved), *out, "--variance-factor", "-1"
    )
    assert not (tmp_path / "out.safetensors").exists()


def test_checkpoints_go_by_their_numbers(run, tmp_path, run_of_training):
    model, swag, paths = run_of_training
    names = []
    for number, path in zip((200, 300, 1000, 1100, 2000, 10000), paths, strict=True):
        names.append(tmp_path / f"checkpoint-{number}.safetensors")
        names[-1].write_bytes(Path(path).read_bytes())
    out = tmp_path / "prior.safetensors"
    shell = sorted(map(str, names))
    assert shell != list(map(str, names))
    table = answer(run, "prior", "fit", *shell, "-o", str(out), "--rank", "3", "--epsilon", "1e-4")
    assert any("checkpoint-200.safetensors, checkpoint-300" in note for note in table["notes"])
    made = br.ModelPrior(model, {"*": swag.prior(epsilon=1e-4)})
    assert br.ModelPrior.load(out, model).log_prob().item() == pytest.approx(made.log_prob().item(), rel=1e-5)
    assert all(row["std"] for row in table["rows"])


def test_what_was_frozen_at_the_source_is_converted_too(run, tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    model.codes = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    br.ModelPrior(model, {"1.*": br.Gaussian(0.5)}).save(tmp_path / "source.safetensors")
    out = tmp_path / "out.safetensors"
    answer(run, "prior", "convert", str(tmp_path / "source.safetensors"), "-o", str(out), "--variance-factor", "4")
    assert br.ModelPrior.load(out, model)["1.weight"].scale.item() == pytest.approx(1.0)

"""A prior file from the source machine on the target's model: another head, other names, another strength."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bayesreg as br


def network(classes, hidden=4):
    torch.manual_seed(classes)
    return nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, classes)).double()


def trained(model, steps, seed=0):
    """Return the state dicts along a short training."""
    generator = torch.Generator().manual_seed(seed)
    X, y = torch.randn(30, 3, generator=generator).double(), torch.randint(0, 3, (30,), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    states = []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return states


@pytest.fixture
def swag(tmp_path):
    model = network(3)
    collected = br.transfer.SWAG(model, max_rank=4)
    for state in trained(network(3), 6):
        model.load_state_dict(state)
        collected.collect()
    br.ModelPrior(model, {"*": collected.prior(epsilon=1e-4)}).save(tmp_path / "swag.safetensors")
    return tmp_path / "swag.safetensors", collected


def test_another_head_is_new_and_the_old_one_integrated_out(swag):
    path, collected = swag
    target = network(2)
    with pytest.raises(br.PriorFileError, match=r"3\.weight has shape .* named by new= with their prior head="):
        br.ModelPrior.load(path, target)
    prior = br.ModelPrior.load(path, target, new="3.*", head=br.Gaussian(0.7))
    body = collected.prior(epsilon=1e-4, only=["0.*", "1.*"])
    made = br.ModelPrior(target, {"3.*": br.Gaussian(0.7), "*": body})
    assert prior.log_prob().item() == pytest.approx(made.log_prob().item(), rel=1e-12)
    assert "new, with a prior of their own: 3.bias, 3.weight, in place of 3.weight, 3.bias" in prior.notes[-1]
    # And again from a file, without a word.
    prior.save(path.with_name("again.safetensors"))
    again = br.ModelPrior.load(path.with_name("again.safetensors"), target)
    assert torch.equal(again.log_prob(), prior.log_prob())


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        old = network(2)
        self.encoder, self.norm, self.fc = old[0], old[1], old[3]


def test_other_names_are_mapped(swag):
    path, _ = swag
    model, names = Other().double(), {"0.*": "encoder.*", "1.*": "norm.*", "3.*": None}
    with pytest.raises(br.PriorFileError, match=r"no name in common with the model: the file has 0\.weight"):
        br.ModelPrior.load(path, model)
    prior = br.ModelPrior.load(path, model, rename=names, new="fc.*", head=br.Gaussian(0.7))
    plain = br.ModelPrior.load(path, network(2), new="3.*", head=br.Gaussian(0.7))
    assert prior.log_prob().item() == pytest.approx(plain.log_prob().item(), rel=1e-12)
    assert any("renamed: 0.weight -> encoder.weight" in note for note in prior.notes)
    with pytest.raises(br.ReferenceMismatchError, match="'nothing' matches no tensor"):
        br.ModelPrior.load(path, model, rename={"nothing": "x"})


def test_what_the_model_lacks_is_ignored_when_asked(swag):
    path, collected = swag
    model = nn.Sequential(nn.Linear(3, 4)).double()
    prior = br.ModelPrior.load(path, model, extra="ignore")
    made = br.ModelPrior(model, {"*": collected.prior(epsilon=1e-4, only="0.*")})
    assert prior.log_prob().item() == pytest.approx(made.log_prob().item(), rel=1e-12)
    assert any("ignored, as the model has no place for them: 1.weight" in note for note in prior.notes)
    for keywords, message in (
        ({"extra": "skip"}, "extra: expected 'raise' or 'ignore'"),
        ({"new": "0.*"}, "new, head: expected both or none"),
        ({"head": br.Flat()}, "new, head: expected both or none"),
    ):
        with pytest.raises(br.InvalidArgumentError, match=message):
            br.ModelPrior.load(path, model, **keywords)
    with pytest.raises(br.PatternError, match="new 'head'"):
        br.ModelPrior.load(path, model, new="head", head=br.Flat())


def test_independent_priors_need_nothing_but_the_words(tmp_path):
    source, target = network(3), network(2)
    br.transfer.l2_sp(source, source, body_scale=0.1, covered="all").save(tmp_path / "p.safetensors")
    prior = br.ModelPrior.load(tmp_path / "p.safetensors", target, new="3.*", head=br.Laplace(0.5))
    assert torch.equal(prior["0.weight"].loc, source[0].weight)
    assert prior["3.weight"].family == "Laplace"


def test_a_prior_file_is_a_reference_of_its_centres(swag):
    path, collected = swag
    target = network(2)
    prior = br.ModelPrior.load(path, target, new="3.*", head=br.Gaussian(1.0))
    assert br.transfer.load_into(target, path, new=["3.*", "*running*", "*num_batches*"])
    assert torch.equal(target[0].weight, collected.reference()["0.weight"])
    assert prior.penalty().item() < 0.5 * target[3].weight.square().sum().item() + 5.0
    br.ModelPrior(target, br.Gaussian(1.0)).save(path)
    with pytest.raises(br.PriorFileError, match="it is no reference"):
        br.load_reference(path)


def test_rows_that_do_not_go_with_the_model_are_refused(tmp_path, swag):
    untied = nn.ModuleDict({"e": nn.Linear(3, 3, bias=False), "h": nn.Linear(3, 3, bias=False)})
    path = tmp_path / "p.safetensors"
    br.ModelPrior(untied, {"e.*": br.Gaussian(0.1), "h.*": br.Gaussian(5.0)}).save(path)
    tied = nn.ModuleDict({"e": nn.Linear(3, 3, bias=False), "h": nn.Linear(3, 3, bias=False)})
    tied["h"].weight = tied["e"].weight
    with pytest.raises(br.PriorFileError, match=r"e\.weight and h\.weight are one tied parameter .* rename="):
        br.ModelPrior.load(path, tied)
    assert br.ModelPrior.load(path, tied, rename={"h.weight": None})["h.weight"].scale.item() == pytest.approx(0.1)
    # Frozen at the source, trained here.
    untied["e"].requires_grad_(False)
    br.ModelPrior(untied, {"h.*": br.Gaussian(5.0)}).save(path)
    untied["e"].requires_grad_(True)
    with pytest.raises(br.PriorFileError, match=r"e\.weight has no prior in the file, as it was frozen there"):
        br.ModelPrior.load(path, untied)
    with pytest.raises(br.PriorFileError, match="no name in common with the model"):
        br.ModelPrior.load(swag[0], untied)
    with pytest.raises(br.PriorFileError, match="cannot be about one parameter twice"):
        br.ModelPrior.load(swag[0], nn.ModuleDict({"a": network(3), "b": network(3)}), extra="ignore",
                           rename={"*": ("a.*", "b.*")})  # fmt: skip
    for keywords, message in (
        ({"new": "e.*", "head": 0.5}, "head: expected a prior"),
        ({"rename": ["a"]}, "rename: expected a mapping"),
        ({"new": [], "head": br.Flat()}, "new: expected a rule key"),
    ):
        with pytest.raises(br.InvalidArgumentError, match=message):
            br.ModelPrior.load(path, untied, **keywords)


def test_a_model_without_memory_keeps_the_prior(swag):
    with torch.device("meta"):
        model = network(3)
    prior = br.ModelPrior.load(swag[0], model)
    assert prior["0.weight"].loc.device.type == "cpu"


def test_an_adapter_prior_goes_with_its_scaling(tmp_path):
    class LoRA(nn.Module):
        def __init__(self, scaling):
            super().__init__()
            self.lora_A, self.lora_B = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4, 2))
            self.scaling = scaling

    br.transfer.lora_prior(LoRA(6.0), 0.1).save(tmp_path / "p.safetensors")
    br.ModelPrior.load(tmp_path / "p.safetensors", LoRA(6.0))
    with pytest.raises(br.PriorFileError, match=r"saved for the update 6·B·A of lora_., and its layer now adds 8·B·A"):
        br.ModelPrior.load(tmp_path / "p.safetensors", LoRA(8.0))


def test_half_an_adapter_is_no_prior(tmp_path):
    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            self.A, self.B = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4, 2))

    model = Factors()
    br.ModelPrior(model, {"*": br.AdapterGaussian(0.1, [("B", "A")])}).save(tmp_path / "p.safetensors")
    with pytest.raises(br.PriorFileError, match="joins B and A, of which only A would be left"):
        br.ModelPrior.load(tmp_path / "p.safetensors", model, new="B", head=br.Flat())


# -- strength --------------------------------------------------------------------------------------------------


def test_rescaled_covariances_keep_their_shape(swag):
    path, collected = swag
    model = network(3)
    loaded = br.ModelPrior.load(path, model)
    wide = br.transfer.rescaled(loaded, 9.0)
    made = br.ModelPrior(model, {"*": collected.prior(scale=9.0, epsilon=1e-4)})
    assert wide.log_prob().item() == pytest.approx(made.log_prob().item(), rel=1e-10)
    assert wide.penalty().item() == pytest.approx(loaded.penalty().item() / 9.0, rel=1e-10)
    assert wide.notes[-1] == "All variances times 9."
    assert "SWAG" in wide["0.weight"].describe()


@pytest.mark.parametrize("prior", [
    br.Gaussian(0.2, loc=0.3),
    br.Gaussian(torch.tensor([0.2, 0.5, 1.0])),
    br.MultivariateGaussian(0.5 * torch.eye(3)),
    br.MatrixGaussian(torch.eye(2), 0.5 * torch.eye(3)),
    br.LowRankGaussian(0.5, torch.ones(2, 3, 1)),
], ids=lambda p: p.family)  # fmt: skip
def test_every_gaussian_is_rescaled(prior):
    model = nn.Linear(3, 2, bias=False)
    held = br.ModelPrior(model, {"*": prior})
    wide = br.transfer.rescaled(held, 4.0)
    assert wide.penalty().item() == pytest.approx(held.penalty().item() / 4.0, rel=1e-5)
    assert torch.allclose(torch.as_tensor(wide["weight"].variance((2, 3))),
                          4.0 * torch.as_tensor(held["weight"].variance((2, 3))), rtol=1e-6)  # fmt: skip


def test_what_is_no_gaussian_is_not_rescaled():
    model = nn.Linear(3, 2)
    with pytest.raises(br.UnsupportedError, match=r"weight: expected a Gaussian prior .* got Laplace"):
        br.transfer.rescaled(br.ModelPrior(model, br.Laplace(1.0)), 2.0)
    learned = br.ModelPrior(model, {"*": br.Gaussian(nn.Parameter(torch.tensor(0.3)))})
    with pytest.raises(br.UnsupportedError, match="weight: its prior has a learned hyper-parameter"):
        br.transfer.rescaled(learned, 2.0)
    with pytest.raises(br.InvalidArgumentError, match=r"prior: expected a br\.ModelPrior, got Gaussian"):
        br.transfer.rescaled(br.Gaussian(0.1), 2.0)
    with pytest.raises(br.InvalidArgumentError, match="factor: expected a value > 0"):
        br.transfer.rescaled(br.ModelPrior(model, br.Gaussian(1.0)), 0.0)


# -- checkpoints -------------------------------------------------------------------------------------------------


def test_checkpoints_are_snapshots(tmp_path):
    states, model = trained(network(3), 6), network(3)
    live = br.transfer.SWAG(model, max_rank=4)
    for k, state in enumerate(states):
        if k % 2:
            save_file(state, tmp_path / f"{k}.safetensors")
        else:
            torch.save({"state_dict": state}, tmp_path / f"{k}.pt")
        model.load_state_dict(state)
        live.collect()
    paths = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem))
    found = br.transfer.SWAG.from_checkpoints((path for path in paths), max_rank=4)
    for mine, theirs in zip(found.statistics(), live.statistics(), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(found.reference()["1.running_mean"], states[-1]["1.running_mean"])


def test_odd_checkpoints_are_refused(tmp_path):
    states = trained(network(3), 3)
    for k, state in enumerate(states):
        save_file(state, tmp_path / f"{k}.safetensors")
    with pytest.raises(br.InvalidArgumentError, match="two or more checkpoints"):
        br.transfer.SWAG.from_checkpoints([tmp_path / "0.safetensors"])
    save_file({n: t for n, t in states[0].items() if n != "0.bias"}, tmp_path / "less.safetensors")
    with pytest.raises(br.ReferenceMismatchError, match=r"same names and shapes as in .*, not so for 0\.bias"):
        br.transfer.SWAG.from_checkpoints([tmp_path / "0.safetensors", tmp_path / "less.safetensors"])
    save_file({**states[0], "0.bias": torch.full((4,), float("nan")).double()}, tmp_path / "nan.safetensors")
    with pytest.raises(br.InvalidArgumentError, match="snapshot 2 has NaN"):
        br.transfer.SWAG.from_checkpoints([tmp_path / "0.safetensors", tmp_path / "nan.safetensors"])


def test_checkpoints_may_differ_in_dtype(tmp_path):
    states = trained(network(3), 3)
    for k, state in enumerate(states):
        dtype = torch.bfloat16 if k == 0 else torch.float32
        narrow = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
        save_file(narrow, tmp_path / f"{k}.safetensors")
    mean = br.transfer.SWAG.from_checkpoints(sorted(tmp_path.iterdir())).statistics()[0]["0.weight"]
    expected = sum(s["0.weight"].to(torch.bfloat16 if k == 0 else torch.float32).double() for k, s in enumerate(states))
    assert torch.allclose(mean.double(), expected / 3, atol=1e-6)


def test_a_skeleton_has_the_names_of_the_file():
    from bayesreg.references.skeleton import skeleton

    model = skeleton({"x.x": torch.ones(2), "x.w": torch.ones(2), "n.running_var": torch.ones(2)})
    assert sorted(model.state_dict()) == ["n.running_var", "x.w", "x.x"]
    assert [name for name, _ in model.named_parameters()] == ["x.x", "x.w"]
    for names in (("a", "a.b"), ("a.b", "a")):
        with pytest.raises(br.ReferenceMismatchError, match="prefix of other names"):
            skeleton({name: torch.ones(1) for name in names})


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

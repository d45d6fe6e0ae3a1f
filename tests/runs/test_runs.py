"""A trained model in a folder, and back with all that it takes to use it."""

from __future__ import annotations

import contextlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import bayesreg as br

L = br.likelihoods


def network(outputs=3):
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, outputs))


def trained(likelihood=None, outputs=3, seed=0, **how):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(40, 4, generator=generator)
    y = X[:, 0] if outputs == 1 else torch.randint(0, outputs, (40,), generator=generator)
    if isinstance(likelihood, L.Bernoulli):
        y = (y > 0).float()
    if isinstance(likelihood, L.Poisson):
        y = y.exp().round()
    torch.manual_seed(seed)
    trainer = br.MAPTrainer(
        network(outputs), br.Gaussian(0.5), likelihood or L.Categorical(),
        optimizer=partial(torch.optim.Adam, lr=0.05), max_epochs=3, progress=False, **how,
    )  # fmt: skip
    trainer.fit((X, y))
    return trainer, X


def test_a_run_comes_back_with_everything(tmp_path):
    trainer, X = trained()
    folder = br.save_run(tmp_path / "deep" / "run", trainer, class_names=["a", "b", "c"], feature_names=list("wxyz"))
    assert folder == tmp_path / "deep" / "run"
    run = br.load_run(folder, network())
    model, prior = run
    assert torch.equal(model(X), trainer.model(X))
    assert prior.same_as(trainer.prior)
    assert isinstance(run.likelihood, L.Categorical)
    assert run.class_names == ("a", "b", "c")
    assert run.feature_names == tuple("wxyz")
    assert run.metrics["mean_nll"] == trainer.result.mean_nll
    assert (run.coefficients, run.intercepts) == ({}, ())
    assert not model.training
    assert torch.equal(run.predict(X, kind="probabilities"), trainer.predict(X, kind="probabilities"))
    names = run.predict(X.numpy(), kind="names")
    assert names == ["abc"[index] for index in trainer.predict(X, kind="classes")]
    assert json.loads((folder / "history.json").read_text()) == [dict(record) for record in trainer.result.history]


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_has_its_coefficients_by_name(tmp_path, bias):
    layer = nn.Linear(4, 2, bias=bias)
    br.save_run(
        tmp_path / "run", layer, br.ModelPrior(layer, br.Gaussian(1.0)), L.Categorical(), feature_names=list("wxyz")
    )
    run = br.load_run(tmp_path / "run", nn.Linear(4, 2, bias=bias))
    assert list(run.coefficients) == list("wxyz")
    assert run.coefficients["x"] == tuple(layer.weight[:, 1].tolist())
    assert run.intercepts == (tuple(layer.bias.tolist()) if bias else (0.0, 0.0))


def test_parts_are_saved_as_a_trainer_is(tmp_path):
    trainer, _ = trained()
    br.save_run(tmp_path / "a", trainer)
    br.save_run(tmp_path / "b", trainer.model, trainer.prior, trainer.likelihood, result=trainer.result)
    for name in ("metrics.json", "history.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in ("model.safetensors", "prior.safetensors"):
        one, other = (load_file(tmp_path / folder / name) for folder in "ab")
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize(
    ("make", "outputs"),
    [
        (lambda: L.Categorical(ignore_index=-1), 3),
        (L.Bernoulli, 1),
        (L.Poisson, 1),
        (lambda: L.Gaussian(0.3), 1),
        (lambda: L.Gaussian("learned"), 1),
        (lambda: L.Gaussian("learned", prior=br.hyperpriors.HalfNormal(0.5)), 1),
    ],
)
def test_every_likelihood_comes_back_with_its_noise(tmp_path, make, outputs):
    trainer, X = trained(make(), outputs)
    br.save_run(tmp_path / "run", trainer)
    run = br.load_run(tmp_path / "run", network(outputs))
    assert type(run.likelihood) is type(trainer.likelihood)
    assert run.likelihood.describe() == trainer.likelihood.describe()
    assert (
        run.noise_std == pytest.approx(trainer.likelihood.gaussian_noise_std or 0, rel=1e-15) or run.noise_std is None
    )
    target = torch.ones(40)
    if outputs > 1:
        target = target.long()
    mine, theirs = run.predict(X), trainer.predict(X)
    shaped = target if outputs > 1 else target[:, None]
    assert torch.equal(mine.log_prob(shaped), theirs.log_prob(shaped))


def test_a_token_likelihood_comes_back():
    from bayesreg.likelihoods.saved import likelihood_from, settings_of

    found = likelihood_from(settings_of(L.Tokens(ignore_index=7, shift=True)))
    assert (found.ignore_index, found.shift) == (7, True)


def test_a_likelihood_that_is_code_is_given_again(tmp_path):
    trainer, X = trained(L.FromLoss(nn.CrossEntropyLoss()))
    br.save_run(tmp_path / "run", trainer)
    run = br.load_run(tmp_path / "run", network())
    assert run.likelihood is None
    assert run.noise_std is None
    assert torch.equal(run.predict(X, kind="output"), trainer.predict(X, kind="output"))
    with pytest.raises(br.InvalidArgumentError, match="the run's likelihood is code, which its folder cannot hold"):
        run.predict(X)
    again = br.load_run(tmp_path / "run", network(), likelihood=L.Categorical())
    assert torch.equal(again.predict(X, kind="classes"), run.predict(X, kind="output").argmax(1))


def test_which_output_is_kept(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return {"hidden": x, "scores": self.inner(x)}

    X, y = torch.randn(12, 4), torch.randint(0, 3, (12,))
    trainer = br.MAPTrainer(Two(), br.Gaussian(1.0), L.Categorical(), output="scores", max_epochs=1, progress=False)
    trainer.fit((X, y))
    br.save_run(tmp_path / "run", trainer)
    run = br.load_run(tmp_path / "run", Two())
    assert torch.equal(run.predict(X, kind="output"), trainer.predict(X, kind="output"))


def test_tied_weights_come_back_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(5, 4)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x):
            return self.head(self.embedding(x))

    model = Tied()
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    br.save_run(tmp_path / "run", model, prior, L.Tokens())
    again, _ = br.load_run(tmp_path / "run", Tied())
    assert again.head.weight is again.embedding.weight
    assert torch.equal(again.head.weight, model.head.weight)


@pytest.mark.slow
def test_a_run_of_the_command_line_says_its_scaling(tmp_path, monkeypatch):
    from bayesreg.cli import main

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 3.0, 60)
    rows = "\n".join(f"{a:.4f},{2 * a + 1 + 0.1 * rng.normal():.4f}" for a in x)
    (tmp_path / "d.csv").write_text(f"a,y\n{rows}\n")
    monkeypatch.setattr("sys.argv", ["bayesreg", "fit", "d.csv", "--target", "y", "--output", "run"])
    with contextlib.suppress(SystemExit):
        main()
    run = br.load_run("run")
    mean, std = run.scaling["features"]
    assert float(mean) == pytest.approx(5.0, abs=1.5)
    assert float(std) == pytest.approx(3.0, abs=1.0)
    assert set(run.scaling) == {"features", "target"}
    assert run.feature_names == ("a",)
    found = run.predict([[5.0]])
    assert float(found.mean) == pytest.approx(11.0, abs=0.3)
    assert run.noise_std == pytest.approx(0.1, rel=0.5)


# -- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda t: (t.model,), "a model alone has no prior and no likelihood"),
        (lambda t: (t, t.prior), "a trainer has its prior and its likelihood; leave them out"),
        (lambda t: ("model", t.prior, t.likelihood), "model: expected"),
    ],
)
def test_what_is_missing_is_told(tmp_path, given, said):
    trainer, _ = trained()
    with pytest.raises(br.InvalidArgumentError, match=said):
        br.save_run(tmp_path / "run", *given(trainer))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("names", ["abc", [1, 2], ["a", "a"], 5])
def test_names_are_words(tmp_path, names):
    trainer, _ = trained()
    with pytest.raises(br.InvalidArgumentError, match="class_names: "):
        br.save_run(tmp_path / "run", trainer, class_names=names)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    trainer, _ = trained()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OSError, match="is not empty; name another folder, or replace a run that is there: replace=Tr"):
        br.save_run(tmp_path, trainer)
    with pytest.raises(OSError, match="is no run folder, and is left as it is"):
        br.save_run(tmp_path, trainer, replace=True)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_is_replaced_once_the_new_one_is_whole(tmp_path, monkeypatch):
    trainer, X = trained()
    br.save_run(tmp_path / "run", trainer, replace=True)
    other, _ = trained(seed=1)
    monkeypatch.setattr(br.ModelPrior, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        br.save_run(tmp_path / "run", other, replace=True)
    assert torch.equal(br.load_run(tmp_path / "run", network()).model(X), trainer.model(X))
    monkeypatch.undo()
    br.save_run(tmp_path / "run", other, replace=True)
    assert torch.equal(br.load_run(tmp_path / "run", network()).model(X), other.model(X))
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_model_must_be_given_and_fit(tmp_path):
    trainer, X = trained()
    br.save_run(tmp_path / "run", trainer)
    with pytest.raises(
        br.InvalidArgumentError, match=r"the run's model is a Sequential of your own.*load_run\(folder, model\)"
    ):
        br.load_run(tmp_path / "run")
    with pytest.raises(br.PriorFileError, match=r"does not fit Sequential \(.*size mismatch"):
        br.load_run(tmp_path / "run", network(2))
    with pytest.raises(br.PriorFileError, match="does not fit Linear"):
        br.load_run(tmp_path / "run", nn.Linear(4, 3))
    with pytest.raises(br.InvalidArgumentError, match="no names; ask for 'classes'"):
        br.load_run(tmp_path / "run", network()).predict(X, kind="names")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"likelihood_settings": {"kind": "Gamma"}}, "damaged likelihood_settings"),
        ({"likelihood_settings": {"kind": "Gaussian", "noise_std": -1, "learned": False, "prior": None}}, "damaged"),
        ({"likelihood_settings": {"kind": "Categorical", "classes": 3}}, "damaged likelihood_settings"),
        ({"likelihood_settings": [1]}, "damaged likelihood_settings"),
        ({"classes": 5}, "damaged classes"),
        ({"features": ["a", 1]}, "damaged features"),
        ({"build": {"model": "linear"}}, "not a readable run folder"),
    ],
)
def test_damaged_metrics_are_told(tmp_path, change, said):
    trainer, _ = trained()
    br.save_run(tmp_path / "run", trainer)
    path = tmp_path / "run" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(br.PriorFileError, match=said):
        br.load_run(tmp_path / "run", network())


def test_an_interrupted_result_is_json(tmp_path):

    class Stops(br.callbacks.Callback):
        def on_step(self, training):
            raise KeyboardInterrupt

    again = br.MAPTrainer(network(), br.Gaussian(1.0), L.Categorical(), callbacks=[Stops()], progress=False)
    with pytest.raises(KeyboardInterrupt):
        again.fit((torch.zeros(40, 4), torch.zeros(40).long()))
    br.save_run(tmp_path / "run", again)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["mean_nll"] is None

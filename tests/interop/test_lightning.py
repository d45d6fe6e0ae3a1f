"""Lightning with a prior: the weights of a loop by hand, in automatic and manual optimization, whatever clips."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import bayesreg as br
from tests.interop.common import BATCH, EPOCHS, PRIORS, RATE, STD, N, Net, by_hand, data, gap

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*", "ignore:.*LeafSpec.*", "ignore:.*TreeSpec.*"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*", "ignore:.*returned `None`.*"),
]
lightning = pytest.importorskip(
    "lightning.pytorch", reason="lightning is not installed: pip install 'bayesreg[lightning]'"
)


class Module(lightning.LightningModule):
    """The network as users write it: automatic optimization."""

    def __init__(self, seed=0, make=None):
        super().__init__()
        self.net = Net(seed)
        self.make = make or (lambda parameters: torch.optim.SGD(parameters, lr=RATE))

    def loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch, _):
        return self.loss(batch)

    def configure_optimizers(self):
        return self.make(self.parameters())


class Manual(Module):
    """Manual optimization, with a clip of Lightning's where a limit is given."""

    def __init__(self, seed=0, limit=None, make=None):
        super().__init__(seed, make)
        self.automatic_optimization, self.limit = False, limit

    def training_step(self, batch, _):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        if self.limit is not None:
            self.clip_gradients(optimizer, gradient_clip_val=self.limit, gradient_clip_algorithm="norm")
        optimizer.step()


def loader(batch=BATCH, **more):
    return DataLoader(TensorDataset(*data()), batch_size=batch, **more)


def trainer(*callbacks, **more):
    given = {
        "accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return lightning.Trainer(callbacks=list(callbacks), **{**given, **more})


def prior(given, **more):
    return br.interop.lightning.PriorCallback(given, **more)


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def over(kind):
    return {"*": br.Gaussian.centered_at(Module(seed=9), STD)} if kind == "centred" else PRIORS[kind]()


def fitted(module, given, **more):
    trainer(prior(given), **more).fit(module, loader())
    return module


def matrices(module):
    return [w for w in weights(module) if w.ndim > 1]


def centres(over):
    return [entry.prior.centre().double() for entry in over if entry.parameter.ndim > 1]


def same_zeros(found, expected):
    zeros = [int((w == 0.0).sum()) for w in found]
    return zeros == [int((w == 0.0).sum()) for w in expected] and sum(zeros) > 0


@pytest.mark.parametrize("limit", [None, 0.1, 0.5])
@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("by", ["automatic", "manual", "hook"])
def test_it_is_the_loop_by_hand(by, kind, limit):
    """Whether the trainer clips, the user's training step does, or the module's own hook."""
    if by == "automatic":
        found = fitted(Module(), over(kind), gradient_clip_val=limit)
    elif by == "manual":
        found = fitted(Manual(limit=limit), over(kind))
    elif kind == "laplace" and limit is None:
        pytest.skip("of a hook that does not clip, a proximal step is not told by how much it shrinks: it raises")
    else:

        class Hooked(Module):
            """A clip of its own."""

            def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
                if limit is not None:
                    self.clip_gradients(optimizer, gradient_clip_val=limit, gradient_clip_algorithm="norm")

        found = fitted(Hooked(), over(kind))
    expected = by_hand(PRIORS[kind](), clip=limit)
    assert gap(weights(found), expected) < 1e-12
    if kind == "laplace":
        assert same_zeros(weights(found), expected)


def test_a_gaussian_is_lightnings_own_weight_decay():
    def decayed(parameters):
        return torch.optim.SGD(parameters, lr=RATE, weight_decay=1.0 / (N * STD**2))

    own = Module(make=decayed)
    trainer().fit(own, loader())
    callback = prior({"*": br.Gaussian(STD)})
    mine = Module()
    trainer(callback).fit(mine, loader())
    assert gap(weights(mine), weights(own)) == 0.0
    assert {row[2] for row in callback.handle.describe().rows} == {"native"}


def test_a_clip_without_the_callback_gives_another_prior():
    """What br.attach in configure_optimizers does: after the clip, whose limit the prior is then free of."""

    class Attached(Module):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            br.attach(optimizer, br.ModelPrior(self, over("centred")), num_data=N)
            return optimizer

    late = Attached()
    with pytest.warns(br.errors.ClipAfterPriorWarning, match="gradients are clipped to a norm of 0.1"):
        trainer(gradient_clip_val=0.1).fit(late, loader())
    assert gap(weights(late), by_hand(PRIORS["centred"](), clip=0.1)) > 5e-3


def test_a_clip_by_value():
    def clipped(rules):
        net = Net()
        own, optimizer = br.ModelPrior(net, rules), torch.optim.SGD(net.parameters(), lr=RATE)
        X, y = data()
        for _ in range(EPOCHS):
            for first in range(0, N, BATCH):
                optimizer.zero_grad()
                rows = slice(first, first + BATCH)
                (F.cross_entropy(net(X[rows]), y[rows]) + own.penalty() / N).backward()
                torch.nn.utils.clip_grad_value_(net.parameters(), 0.02)
                optimizer.step()
        return [p.detach() for p in net.parameters()]

    settings = {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"}
    found = weights(fitted(Module(), over("centred"), **settings))
    assert gap(found, clipped(PRIORS["centred"]())) < 1e-12
    with pytest.raises(br.UnsupportedError, match="a clip by value leaves no one factor"):
        fitted(Module(), over("laplace"), **settings)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", PRIORS)
def test_several_optimizers(kind, together):
    """Each layer with its own, clipped each by itself, and stepped one by one or after all clips."""

    class Two(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, _):
            both = self.optimizers()
            for one in both:
                one.zero_grad()
            self.manual_backward(self.loss(batch))
            for one in both:
                self.clip_gradients(one, gradient_clip_val=0.05, gradient_clip_algorithm="norm")
                if not together:
                    one.step()
            for one in both if together else ():
                one.step()

        def configure_optimizers(self):
            return [torch.optim.SGD(self.net[at].parameters(), lr=RATE) for at in (0, 2)]

    found = fitted(Two(), over(kind))
    net = Net()
    own = br.ModelPrior(net, PRIORS[kind]())
    X, y = data()
    for _ in range(EPOCHS):
        for first in range(0, N, BATCH):
            net.zero_grad()
            rows = slice(first, first + BATCH)
            loss = F.cross_entropy(net(X[rows]), y[rows])
            (loss if kind == "laplace" else loss + own.penalty() / N).backward()
            for layer in (net[0], net[2]):
                norm = float(torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.05))
                factor = min(1.0, 0.05 / (norm + 1e-6))
                with torch.no_grad():
                    for name, p in layer.named_parameters():
                        p -= RATE * p.grad
                        if kind == "laplace" and name == "weight":
                            p.copy_(p.sign() * (p.abs() - RATE * factor / (N * 0.1)).clamp_min(0.0))
    assert gap(weights(found), [p.detach() for p in net.parameters()]) < 1e-12


@pytest.mark.parametrize("kind", PRIORS)
def test_a_clip_in_some_steps(kind):
    """What is not clipped by hand has the prior too, once."""

    class Some(Manual):
        def training_step(self, batch, index):
            self.limit = 0.05 if index % 2 else None
            super().training_step(batch, index)

    found = fitted(Some(), over(kind))
    net = Net()
    own, optimizer = br.ModelPrior(net, PRIORS[kind]()), torch.optim.SGD(net.parameters(), lr=RATE)
    X, y = data()
    for _ in range(EPOCHS):
        for index in range(3):
            optimizer.zero_grad()
            rows = slice(index * BATCH, (index + 1) * BATCH)
            loss, factor = F.cross_entropy(net(X[rows]), y[rows]), 1.0
            (loss if kind == "laplace" else loss + own.penalty() / N).backward()
            if index % 2:
                norm = float(torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05))
                factor = min(1.0, 0.05 / (norm + 1e-6))
            optimizer.step()
            if kind == "laplace":
                with torch.no_grad():
                    for layer in (net[0], net[2]):
                        w = layer.weight
                        w.copy_(w.sign() * (w.abs() - RATE * factor / (N * 0.1)).clamp_min(0.0))
    assert gap(weights(found), [p.detach() for p in net.parameters()]) < 1e-12


def test_accumulation_is_lightnings_and_a_short_window_is_said():
    """Each micro-batch is divided by K, in the short last window too; the prior counts once per step."""

    def windows(divide):
        net = Net()
        own, optimizer = br.ModelPrior(net, PRIORS["centred"]()), torch.optim.SGD(net.parameters(), lr=RATE)
        X, y = data()
        for _ in range(EPOCHS):
            for batches in ((0, 20), (40,)):
                optimizer.zero_grad()
                for first in batches:
                    rows = slice(first, first + 20)
                    (F.cross_entropy(net(X[rows]), y[rows]) / divide(batches)).backward()
                (own.penalty() / N).backward()
                optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    with pytest.warns(br.errors.ShortWindowWarning, match=r"accumulates 1 of accumulate_grad_batches=2 batches"):
        found = weights(fitted(Module(), over("centred"), accumulate_grad_batches=2))
    assert gap(found, windows(lambda _: 2)) < 1e-12
    assert gap(found, windows(len)) > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error", br.errors.ShortWindowWarning)
        fitted(Module(), over("centred"), accumulate_grad_batches=3)

    later = trainer(prior(over("centred")), lightning.callbacks.GradientAccumulationScheduler(scheduling={2: 2}))
    with pytest.warns(br.errors.ShortWindowWarning, match="accumulates 1 of"):
        later.fit(Module(), loader())

    # The trap: a penalty in training_step is divided by K with the loss, so counts once per window of K, less in a
    # short one, beside a prior that counts once per step.
    class Naive(Module):
        def training_step(self, batch, _):
            return self.loss(batch) + br.ModelPrior(self, over("centred")).penalty() / N

    naive = Naive()
    trainer(accumulate_grad_batches=2).fit(naive, loader())
    assert gap(weights(naive), found) > 1e-3


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.0)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=RATE, momentum=0.9)


@pytest.mark.parametrize("limit", [None, 0.3])
@pytest.mark.parametrize("make", [adam, momentum])
@pytest.mark.parametrize("kind", PRIORS)
def test_a_resumed_run_is_the_unbroken_one_to_the_bit(kind, make, limit, tmp_path):
    def saving():
        return lightning.callbacks.ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0)

    def run(epochs, module, **fit):
        settings = {"max_epochs": epochs, "enable_checkpointing": True, "gradient_clip_val": limit}
        made = prior(over(kind))
        generator = torch.Generator().manual_seed(3)
        train = loader(shuffle=True, generator=generator)
        if fit:  # the order of the first epochs
            for _ in range(2):
                list(train)
        trainer(made, saving(), **settings).fit(module, train, **fit)
        return weights(module)

    whole = run(4, Module(make=make))
    run(2, Module(make=make))
    again = run(4, Module(seed=7, make=make), ckpt_path=tmp_path / "last.ckpt")
    assert all(map(torch.equal, again, whole))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(name.startswith("net.") for name in saved["state_dict"])
    # Without the callback the optimizer's state says what is missing.
    with pytest.raises(br.InvalidArgumentError, match="prior"):
        trainer(max_epochs=6).fit(Module(make=make), loader(), ckpt_path=tmp_path / "last.ckpt")


def test_the_centre_is_the_module_as_it_came(tmp_path):
    """Also after a resume, by a module that holds other weights."""

    def run(epochs, module, **fit):
        made = prior(f"pretrained({STD})")
        saving = lightning.callbacks.ModelCheckpoint(dirpath=tmp_path, save_last=True, save_top_k=0)
        trainer(made, saving, max_epochs=epochs, enable_checkpointing=True).fit(module, loader(), **fit)
        return made.model_prior

    first = Module(seed=3)
    start = matrices(first)
    assert all(map(torch.equal, centres(run(1, first)), start))
    for seed, epochs in ((3, 2), (4, 3)):
        again = centres(run(epochs, Module(seed), ckpt_path=tmp_path / "last.ckpt"))
        assert all(map(torch.equal, again, start))
    made = prior(f"pretrained({2.0 * STD})")
    with pytest.raises(br.InvalidArgumentError, match="written under another prior"):
        trainer(made, max_epochs=4).fit(Module(3), loader(), ckpt_path=tmp_path / "last.ckpt")


def test_a_module_that_makes_its_weights_late(tmp_path):
    class Late(Module):
        def __init__(self):
            super().__init__()
            del self.net

        def configure_model(self):
            if not hasattr(self, "net"):
                self.net = Net(seed=3)

    made = prior(f"pretrained({STD})")
    trainer(made).fit(Late(), loader())
    assert all(map(torch.equal, centres(made.model_prior), matrices(Net(seed=3))))
    plain = trainer(max_epochs=1)
    plain.fit(Late(), loader())
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.raises(br.InvalidArgumentError, match="holds no prior, and the weights that the module makes in"):
        trainer(prior(f"pretrained({STD})"), max_epochs=2).fit(Late(), loader(), ckpt_path=tmp_path / "plain.ckpt")


def test_a_module_that_loads_or_makes_weights_in_setup():
    """Which comes after the setup of callbacks."""
    loaded = Net(seed=5).state_dict()

    class Loads(Module):
        def setup(self, stage):
            self.net.load_state_dict(loaded)

    class Builds(Module):
        def __init__(self):
            super().__init__()
            del self.net

        def setup(self, stage):
            self.net = Net(seed=5)

    for kind in (Loads, Builds):
        made = prior(f"pretrained({STD})")
        trainer(made, max_epochs=1).fit(kind(), loader())
        assert all(map(torch.equal, centres(made.model_prior), matrices(Net(seed=5))))


def test_a_resumed_run_has_the_centre_and_the_n_that_it_had(tmp_path):
    first = trainer(prior(over("centred")), max_epochs=1)
    first.fit(Module(), loader())
    first.save_checkpoint(tmp_path / "one.ckpt")
    other = {"*": br.Gaussian.centered_at(Module(seed=10), STD)}
    for given, words in (
        (prior(other), "written under another prior"),
        (prior(over("centred"), num_data=6000), r"the checkpoint was trained at s = 0.0166667 \(n = 60"),
    ):
        with pytest.raises(br.InvalidArgumentError, match=words):
            trainer(given, max_epochs=2).fit(Module(), loader(), ckpt_path=tmp_path / "one.ckpt")


@pytest.mark.parametrize("limit", [None, 0.1])
@pytest.mark.parametrize("kind", PRIORS)
def test_optimizers_made_anew_have_the_prior(kind, limit):
    class Anew(lightning.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.strategy.setup_optimizers(trainer)

    made, module = prior(over(kind)), Module()
    trainer(made, Anew(), gradient_clip_val=limit).fit(module, loader())
    assert gap(weights(module), by_hand(PRIORS[kind](), clip=limit)) < 1e-12


@pytest.mark.parametrize("limit", [None, 0.1])
@pytest.mark.parametrize("kind", PRIORS)
def test_a_batch_that_is_left_out(kind, limit):
    """A training step returns None: the step is as if the batch were not there."""

    class Skips(Module):
        def training_step(self, batch, index):
            return None if index == 1 else self.loss(batch)

    X, y = data()
    rows = [*range(20), *range(40, 60)]
    short = DataLoader(TensorDataset(X[rows], y[rows]), batch_size=BATCH)
    skipping, without = Skips(), Module()
    trainer(prior(over(kind)), gradient_clip_val=limit).fit(skipping, loader())
    trainer(prior(over(kind), num_data=N), gradient_clip_val=limit).fit(without, short)
    assert gap(weights(skipping), weights(without)) < 1e-15
    assert gap(weights(without), weights(Module())) > 1e-2


def test_words_relative_to_n_in_a_second_fit():
    made, module = prior("gaussian(weight_decay=0.01)"), Module()
    X, y = data()
    trainer(made, max_epochs=1).fit(module, DataLoader(TensorDataset(X[:20], y[:20]), batch_size=BATCH))
    trainer(made, max_epochs=1).fit(module, loader())
    variances = [float(entry.prior.variance()) for entry in made.model_prior if entry.parameter.ndim > 1]
    assert variances == pytest.approx([1.0 / (N * 0.01)] * 2)


def test_a_second_fit_is_about_the_same_centre():
    def about(module):
        return br.ModelPrior(module, {"*": br.Gaussian.centered_at(module, STD)})

    made, module = prior(about), Module(seed=3)
    once = trainer(made)
    once.fit(module, loader())
    centre = made.model_prior
    once.fit_loop.max_epochs = 2 * EPOCHS
    once.fit(module, loader())
    assert made.model_prior is centre
    expected = by_hand({"*": br.Gaussian.centered_at(Net(3), STD)}, net=Net(3), epochs=2 * EPOCHS)
    assert gap(weights(module), expected) < 1e-12


class TestHowManyExamples:
    """n, read off the loader or told."""

    def decay(self, train, made=None, **more):
        made = made or prior({"*": br.Gaussian(STD)})
        trainer(made, max_epochs=1, **more).fit(Module(), train)
        return made.handle.loss_scale.value

    def test_from_the_loader(self):
        assert self.decay(loader()) == pytest.approx(1.0 / N)
        assert self.decay(loader(shuffle=True, drop_last=True, batch=25)) == pytest.approx(1.0 / N)
        assert self.decay(loader(sampler=SubsetRandomSampler(range(40)))) == pytest.approx(1.0 / 40)
        assert self.decay(loader(), prior({"*": br.Gaussian(STD)}, num_data=1000)) == pytest.approx(1e-3)
        assert self.decay(loader(), fast_dev_run=True) == pytest.approx(1.0 / N)

    def test_what_cannot_be_read_is_asked_for(self):
        with pytest.raises(br.InvalidArgumentError, match="cannot be read off dict"):
            self.decay({"a": loader(), "b": loader()})
        for more in ({"limit_train_batches": 2}, {"overfit_batches": 1}):
            with pytest.raises(br.InvalidArgumentError, match=r"leaves \d of 3 batches an epoch"):
                self.decay(loader(), **more)
        told = prior({"*": br.Gaussian(STD)}, num_data=40)
        assert self.decay(loader(), told, limit_train_batches=2) == pytest.approx(1.0 / 40)

    def test_data_that_grow_are_asked_about(self):
        class Growing(lightning.LightningDataModule):
            def train_dataloader(self):
                size = 20 * (1 + self.trainer.current_epoch)
                return DataLoader(TensorDataset(*(one[:size] for one in data())), batch_size=BATCH)

        def fit(made):
            trainer(made, max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(Module(), datamodule=Growing())

        with pytest.raises(br.InvalidArgumentError, match="loaded anew with n = 40 in place of 20"):
            fit(prior(over("l2")))
        fit(prior(over("l2"), num_data=N))


@pytest.mark.parametrize("kind", ["l2", "centred"])
@pytest.mark.parametrize("limit", [None, 0.5])
def test_sixteen_bits_with_a_scaler(kind, limit):
    """Gradients are unscaled before the prior goes in: near to training in float32, and far from no prior."""
    from lightning.pytorch.plugins import MixedPrecision

    def single(module):
        return module.float()

    def train(given, **more):
        module = single(Module())
        rows = TensorDataset(data()[0].float(), data()[1])
        callbacks = [] if given is None else [prior(given)]
        trainer(*callbacks, gradient_clip_val=limit, **more).fit(module, DataLoader(rows, batch_size=BATCH))
        return weights(module)

    strong = br.Gaussian(0.2) if kind == "l2" else br.Gaussian.centered_at(single(Module(seed=9)), 0.2)
    half = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    found, wide, without = train({"*": strong}, plugins=[half]), train({"*": strong}), train(None)
    assert gap(found, wide) < 2e-3
    assert gap(found, without) > 2e-2
    bf16 = train({"*": strong}, precision="bf16-mixed")
    assert gap(bf16, wide) < 2e-2


def test_a_clip_of_scaled_gradients_is_refused():
    from lightning.pytorch.plugins import MixedPrecision

    half = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(br.UnsupportedError, match="still multiplied by the scale of a GradScaler"):
        fitted(Manual(limit=0.5), over("l2"), plugins=[half])

    class Unscaled(Manual):
        def clip_gradients(self, optimizer, **more):
            self.trainer.precision_plugin.scaler.unscale_(optimizer.optimizer)
            super().clip_gradients(optimizer, **more)

    class Hooked(Module):
        def configure_gradient_clipping(self, optimizer, **more):
            pass

    def fused(parameters):
        return torch.optim.Adam(parameters, fused=True)

    half = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(br.UnsupportedError, match="of a fused optimizer"):
        fitted(Hooked(make=fused), over("l2"), plugins=[half])


def test_a_clip_by_ones_own_hand_is_said():
    class Raw(Manual):
        def training_step(self, batch, _):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            torch.nn.utils.clip_grad_norm_(self.parameters(), 0.1)
            optimizer.step()

    with pytest.warns(br.errors.ClipAfterPriorWarning, match="gradients are clipped to a norm of 0.1"):
        fitted(Raw(), over("centred"))


def test_what_is_logged(tmp_path):
    made = prior(over("l2"))
    logger = lightning.loggers.CSVLogger(tmp_path)
    module = Module()
    run = trainer(made, logger=logger, log_every_n_steps=1, max_epochs=1)
    run.fit(module, loader())
    own = br.ModelPrior(module, over("l2"))
    assert float(run.callback_metrics["prior/log_prior"]) == pytest.approx(float(own.log_prob().detach()), rel=1e-6)
    lines = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    assert "prior/penalty_in_loss" in lines[0]
    assert len(lines) == 4
    quiet = lightning.loggers.CSVLogger(tmp_path / "quiet")
    trainer(prior(over("l2")), logger=quiet, log_every_n_steps=0, max_epochs=1).fit(Module(), loader())


def test_lightnings_clip_is_left_as_it_was():
    made, run = prior(over("l2")), trainer(gradient_clip_val=0.1)
    run.callbacks.append(made)
    run.fit(Module(), loader())
    assert "clip_gradients" not in vars(run.precision_plugin)

    class Fails(Module):
        def training_step(self, batch, index):
            raise RuntimeError("on purpose")

    run = trainer(made, gradient_clip_val=0.1)
    with pytest.raises(RuntimeError, match="on purpose"):
        run.fit(Fails(), loader())
    assert "clip_gradients" not in vars(run.precision_plugin)


def test_a_copy_attaches_its_own():
    made = prior(over("l2"), num_data=N)
    trainer(made).fit(Module(), loader())
    copy = pickle.loads(pickle.dumps(made))
    assert copy.handle is None
    module = Module()
    trainer(copy).fit(module, loader())
    assert gap(weights(module), by_hand(PRIORS["l2"]())) < 1e-12


def test_it_stands_beside_other_callbacks():
    from lightning.pytorch.callbacks import StochasticWeightAveraging
    from lightning.pytorch.tuner import Tuner

    class Rated(Module):
        def __init__(self):
            super().__init__()
            self.lr = RATE

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    made = prior(over("centred"))
    run = trainer(made, StochasticWeightAveraging(swa_lrs=RATE, swa_epoch_start=1), gradient_clip_val=0.1)
    averaged = Module()
    run.fit(averaged, loader())
    assert gap(weights(averaged), by_hand(PRIORS["centred"](), clip=0.1)) > 1e-6
    # The search for a rate takes the callbacks away and puts the weights back; a fit after it is as without it.
    found, run = Rated(), trainer(prior(over("centred")), gradient_clip_val=0.1)
    Tuner(run).lr_find(found, loader(), num_training=6, update_attr=False)
    assert gap(weights(found), weights(Rated())) == 0.0
    run.fit(found, loader())
    assert gap(weights(found), by_hand(PRIORS["centred"](), clip=0.1)) < 1e-12


OTHER = """
import warnings; warnings.simplefilter("ignore")
{imports}
import bayesreg as br, torch
from torch.nn import functional as F
from tests.interop.common import EPOCHS, PRIORS, RATE, Net, by_hand, data, gap

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()
    def training_step(self, batch, _):
        return F.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=RATE)

made = pl.Trainer(
    accelerator="cpu", devices=1, max_epochs=EPOCHS, logger=False, gradient_clip_val=0.1, enable_progress_bar=False,
    enable_model_summary=False, callbacks=[br.interop.lightning.PriorCallback(PRIORS["laplace"]())],
    enable_checkpointing=False,
)
module = Module()
made.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=20))
print(gap(module.parameters(), by_hand(PRIORS["laplace"](), clip=0.1)) < 1e-12)
"""


@pytest.mark.parametrize(
    "imports", ["import pytorch_lightning as pl", "import lightning.pytorch, pytorch_lightning as pl"]
)
def test_under_its_other_name(imports):
    """The same code is published under two names, whose classes are not each other's."""
    pytest.importorskip("pytorch_lightning")
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", OTHER.format(imports=imports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("True\n")


def test_two_priors_and_other_mistakes():
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `PriorCallback`"):
        trainer(prior(over("l2")), prior(over("l2"))).fit(Module(), loader())
    with pytest.raises(br.InvalidArgumentError, match="expected the width of 'pretrained' as a number"):
        trainer(prior("pretrained")).fit(Module(), loader())
    decayed = Module(make=lambda parameters: torch.optim.SGD(parameters, lr=RATE, weight_decay=0.1))
    with pytest.raises(br.InvalidArgumentError, match=r"already has weight_decay=0\.1"):
        trainer(prior(over("l2"))).fit(decayed, loader())
    with pytest.raises(br.InvalidArgumentError, match="prior: expected a prior such as"):
        trainer(prior(3.0)).fit(Module(), loader())


def test_the_example_in_its_documentation():
    import doctest

    module = br.interop.lightning
    assert doctest.testmod(module).attempted >= 5
    assert doctest.testmod(module).failed == 0


def test_the_network_of_all_tests():
    assert isinstance(Module().net, nn.Sequential)

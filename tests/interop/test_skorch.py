"""skorch with a prior: the weights of a loop by hand, whatever fit, partial_fit, clips, pickles and searches do."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import bayesreg as br
from tests.interop.common import BATCH, EPOCHS, PRIORS, RATE, STD, N, Net, by_hand, data, gap

pytestmark = pytest.mark.slow
skorch = pytest.importorskip("skorch", reason="skorch is not installed: pip install 'bayesreg[skorch]'")


def net(*callbacks, **more):
    settings = {
        "criterion": nn.CrossEntropyLoss, "lr": RATE, "max_epochs": EPOCHS, "batch_size": BATCH, "train_split": None,
        "iterator_train__shuffle": False, "verbose": 0,
    }  # fmt: skip
    return skorch.NeuralNet(Net, callbacks=[("prior", callbacks[0]), *callbacks[1:]], **{**settings, **more})


def prior(rules, **more):
    return br.interop.skorch.PriorCallback(rules, **more)


def clip(limit):
    from skorch.callbacks import GradientNormClipping

    return GradientNormClipping(limit)


def weights(fitted):
    return [p.detach().clone() for p in fitted.module_.parameters()]


def arrays():
    X, y = data()
    return X.numpy(), y.numpy()


def about_itself(module):
    return br.ModelPrior(module, {"*": br.Gaussian.centered_at(module, STD)})


PICKLED = {"words": f"pretrained({STD})", "function": about_itself}


def matrices(module):
    return [p.detach().clone() for p in module.parameters() if p.ndim > 1]


def centres(fitted):
    own = dict(fitted.callbacks_)["prior"].model_prior_
    return [entry.prior.centre().double() for entry in own if entry.parameter.ndim > 1]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("limit", [None, 0.1, 0.5])
@pytest.mark.parametrize("kind", PRIORS)
def test_it_is_the_loop_by_hand(kind, limit, momentum):
    rules = PRIORS[kind]()
    callbacks = [prior(rules)] if limit is None else [prior(rules), clip(limit)]
    fitted = net(*callbacks, optimizer__momentum=momentum).fit(*arrays())
    expected = by_hand(rules, clip=limit, momentum=momentum)
    if not (kind == "laplace" and momentum):
        assert gap(weights(fitted), expected) < 1e-12
    else:
        # With momentum a proximal step has a memory of its own; the zeros and the fixed point are the same.
        assert gap(weights(fitted), expected) < 0.2
    if kind == "laplace" and not momentum:
        zeros = [int((w == 0.0).sum()) for w in weights(fitted)]
        assert zeros == [int((w == 0.0).sum()) for w in expected]
    assert gap(weights(fitted), by_hand(None, clip=limit, momentum=momentum)) > 1e-3


def test_a_gaussian_is_its_own_weight_decay():
    decayed = net(clip(1e9), optimizer__weight_decay=1.0 / (N * STD**2)).fit(*arrays())
    assert gap(weights(net(prior({"*": br.Gaussian(STD)})).fit(*arrays())), weights(decayed)) == 0.0


def test_a_clip_without_the_callback_gives_another_prior():
    """What attach by hand does here: after the clip, whose limit the prior is then free of."""
    rules = PRIORS["centred"]()
    mine = weights(net(prior(rules), clip(0.1)).fit(*arrays()))

    def late(module):
        return br.ModelPrior(module, rules)

    class Late(skorch.callbacks.Callback):
        def on_epoch_begin(self, net, **_):
            if not getattr(self, "on", False):
                self.on = br.attach(net.optimizer_, late(net.module_), num_data=N)

    with pytest.warns(br.errors.ClipAfterPriorWarning, match="gradients are clipped to a norm of 0.1"):
        late_weights = weights(net(Late(), clip(0.1)).fit(*arrays()))
    assert gap(mine, late_weights) > 5e-3


def test_a_prior_attached_before_fit_is_lost():
    """The trap: fit makes another optimizer."""
    bare = net(clip(1e9)).initialize()
    br.attach(bare.optimizer_, br.ModelPrior(bare.module_, PRIORS["l2"]()), num_data=N)
    assert gap(weights(bare.fit(*arrays())), by_hand(None)) < 1e-12


def test_n_is_what_is_left_after_the_hold_out():
    fitted = net(prior({"*": br.Gaussian(STD)}), train_split=skorch.dataset.ValidSplit(5)).fit(*arrays())
    assert fitted.optimizer_.param_groups[0]["weight_decay"] == pytest.approx(1.0 / (0.8 * N * STD**2), rel=1e-12)
    told = net(prior({"*": br.Gaussian(STD)}, num_data=1000)).fit(*arrays())
    assert told.optimizer_.param_groups[0]["weight_decay"] == pytest.approx(1.0 / (1000 * STD**2), rel=1e-12)


@pytest.mark.parametrize("kind", PRIORS)
def test_fit_begins_again_and_partial_fit_goes_on(kind):
    rules = PRIORS[kind]()
    fitted = net(prior(rules)).fit(*arrays())
    once = weights(fitted)
    assert all(map(torch.equal, weights(fitted.fit(*arrays())), once))
    fitted.partial_fit(*arrays())
    assert gap(weights(fitted), by_hand(rules, epochs=2 * EPOCHS)) < 1e-12


@pytest.mark.parametrize("kind", PRIORS)
def test_a_pickled_net_goes_on_to_the_bit(kind):
    rules = PRIORS[kind]()
    whole = net(prior(rules), max_epochs=2 * EPOCHS, optimizer__momentum=0.9).fit(*arrays())
    half = net(prior(rules), optimizer__momentum=0.9).fit(*arrays())
    copy = pickle.loads(pickle.dumps(half))
    assert all(map(torch.equal, weights(copy.partial_fit(*arrays())), weights(whole)))


@pytest.mark.parametrize("way", ["words", "function"])
def test_the_centre_stays_in_a_copy_that_goes_on(way):
    """Made anew, it would be the weights that were trained already."""
    one = net(prior(PICKLED[way]), max_epochs=2).fit(*arrays())
    start = matrices(Net())
    assert all(map(torch.equal, centres(one), start))
    copy = pickle.loads(pickle.dumps(one))
    for _ in range(2):
        copy.partial_fit(*arrays())
        assert all(map(torch.equal, centres(copy), start))
        copy = pickle.loads(pickle.dumps(copy))
    copy.set_params(callbacks__prior__num_data=1000)
    assert all(map(torch.equal, centres(copy.partial_fit(*arrays())), start))
    # A copy that begins anew is about its own beginning.
    again = pickle.loads(pickle.dumps(copy)).set_params(module__seed=5).fit(*arrays())
    assert all(map(torch.equal, centres(again), matrices(Net(seed=5))))
    one.partial_fit(*arrays())
    one.set_params(callbacks__prior__num_data=1000)
    one.partial_fit(*arrays())
    assert all(map(torch.equal, centres(one), start))
    one.set_params(callbacks__prior__prior="pretrained(0.3)")
    with pytest.raises(br.InvalidArgumentError, match="this net goes on with trained ones; give the centre as weights"):
        one.partial_fit(*arrays())


def test_parameters_that_were_loaded_are_no_beginning(tmp_path):
    """skorch's checkpoints hold no callback, so no centre."""
    saved = skorch.callbacks.Checkpoint(monitor=None, dirname=str(tmp_path))
    rules = PRIORS["centred"]()
    net(prior(rules), ("saved", saved), optimizer__momentum=0.9).fit(*arrays())
    whole = net(prior(rules), max_epochs=2 * EPOCHS, optimizer__momentum=0.9).fit(*arrays())
    again = net(prior(rules), optimizer__momentum=0.9).initialize()
    again.load_params(checkpoint=saved)
    assert all(map(torch.equal, weights(again.partial_fit(*arrays())), weights(whole)))
    for about in PICKLED.values():
        words = net(prior(about), optimizer__momentum=0.9).initialize()
        words.load_params(checkpoint=saved)
        with pytest.raises(br.InvalidArgumentError, match="this net goes on with trained ones"):
            words.partial_fit(*arrays())
    # Without a history the optimizer's state tells.
    whole.save_params(f_params=str(tmp_path / "p.pt"), f_optimizer=str(tmp_path / "o.pt"))
    bare = net(prior(PICKLED["words"]), optimizer__momentum=0.9).initialize()
    bare.load_params(f_params=str(tmp_path / "p.pt"), f_optimizer=str(tmp_path / "o.pt"))
    with pytest.raises(br.InvalidArgumentError, match="this net goes on with trained ones"):
        bare.partial_fit(*arrays())


def test_a_net_with_modules_of_other_names():
    class Other(skorch.NeuralNet):
        def initialize_module(self):
            self.body_ = Net()
            return self

        def infer(self, x, **_):
            return self.body_(x)

    other = Other(
        Net, criterion=nn.CrossEntropyLoss, callbacks=[("prior", prior("gaussian(1.0)"))], verbose=0, train_split=None
    )
    with pytest.raises(br.UnsupportedError, match="expected a net with one module, called `module`, got Other without"):
        other.fit(*arrays())


def test_a_search_over_priors():
    search = GridSearchCV(
        skorch.NeuralNetClassifier(
            Net, callbacks=[("prior", prior("gaussian(1.0)"))], max_epochs=2, lr=RATE, criterion=nn.CrossEntropyLoss,
            train_split=None, verbose=0,
        ),
        {"callbacks__prior__prior": ["gaussian(0.2)", "laplace(0.5)", br.Gaussian(3.0)]}, cv=2, error_score="raise",
        scoring="neg_log_loss",
    ).fit(*arrays())  # fmt: skip
    assert len(set(np.round(search.cv_results_["mean_test_score"], 12))) > 1
    copy = clone(search.best_estimator_)
    assert copy.get_params()["callbacks__prior__prior"] is not None


def test_another_prior_on_the_same_optimizer():
    fitted = net(prior({"*": br.Gaussian(STD)})).fit(*arrays())
    fitted.set_params(callbacks__prior__prior={"*": br.Gaussian(2.0 * STD)})
    fitted.partial_fit(*arrays())
    assert fitted.optimizer_.param_groups[0]["weight_decay"] == pytest.approx(1.0 / (4.0 * N * STD**2))


def test_what_a_function_makes():
    made = []

    def centred(module):
        made.append(br.ModelPrior(module, PRIORS["centred"]()))
        return made[-1]

    fitted = net(prior(centred)).fit(*arrays())
    assert len(made) == 1
    assert gap(weights(fitted), by_hand(PRIORS["centred"]())) < 1e-12


def test_what_is_refused():
    X, y = arrays()
    with pytest.raises(br.InvalidArgumentError, match="put the PriorCallback first"):
        skorch.NeuralNet(
            Net, criterion=nn.CrossEntropyLoss, callbacks=[clip(0.1), ("prior", prior("gaussian(1.0)"))], verbose=0,
            train_split=None,
        ).fit(X, y)  # fmt: skip
    with pytest.raises(br.InvalidArgumentError, match="the criterion has reduction='sum'"):
        net(prior("gaussian(1.0)"), criterion__reduction="sum").fit(X, y)
    scale = br.LossScale(1.0)
    summed = net(prior({"*": br.Gaussian(STD)}, num_data=scale), criterion__reduction="sum", lr=1e-4).fit(X, y)
    assert summed.optimizer_.param_groups[0]["weight_decay"] == pytest.approx(1.0 / STD**2)
    with pytest.raises(br.InvalidArgumentError, match=r"already has weight_decay=0\.1"):
        net(prior("gaussian(1.0)"), optimizer__weight_decay=0.1).fit(X, y)
    with pytest.raises(br.InvalidArgumentError, match="prior: expected a prior such as"):
        net(prior(None)).fit(X, y)
    fitted = net(prior("gaussian(1.0)")).fit(X, y)
    with pytest.raises(br.InvalidArgumentError, match="pass the size of all"):
        fitted.partial_fit(X[:30], y[:30])
    parts = net(prior({"*": br.Gaussian(1.0)}, num_data=N)).fit(X[:30], y[:30])
    parts.partial_fit(X[30:], y[30:])
    assert parts.optimizer_.param_groups[0]["weight_decay"] == pytest.approx(1.0 / N)


def test_parts_of_one_size_are_asked_about():
    X, y = arrays()
    fitted = net(prior({"*": br.Gaussian(1.0)})).partial_fit(X[:20], y[:20])
    fitted.partial_fit(X[:20], y[:20])
    with pytest.raises(br.InvalidArgumentError, match="pass the size of all"):
        fitted.partial_fit(X[20:40], y[20:40])


def test_n_of_a_sampler_and_of_several_labels():
    from torch.utils.data import SubsetRandomSampler, WeightedRandomSampler

    def scale(made, X, y, **more):
        return dict(made.fit(X, y).callbacks_)["prior"].handle_.loss_scale.value

    X, y = arrays()
    drawn = net(prior({"*": br.Gaussian(STD)}), iterator_train__sampler=SubsetRandomSampler(range(20)))
    assert scale(drawn, X, y) == pytest.approx(1 / 20)
    weighted = net(prior({"*": br.Gaussian(STD)}), iterator_train__sampler=WeightedRandomSampler([1.0] * N, 30))
    with pytest.raises(br.InvalidArgumentError, match="or off its sampler; pass it"):
        weighted.fit(X, y)
    targets = np.random.default_rng(0).normal(size=(N, 3))
    with pytest.raises(br.InvalidArgumentError, match="an example has 3 targets"):
        net(prior({"*": br.Gaussian(STD)}), criterion=nn.MSELoss).fit(X, targets)
    told = net(prior({"*": br.Gaussian(STD)}, num_data=3 * N), criterion=nn.MSELoss)
    assert scale(told, X, targets) == pytest.approx(1 / (3 * N))


def test_the_history_has_the_priors_terms():
    fitted = net(prior({"*": br.Gaussian(STD)})).fit(*arrays())
    own = br.ModelPrior(fitted.module_, {"*": br.Gaussian(STD)})
    assert fitted.history[-1]["log_prior"] == pytest.approx(float(own.log_prob().detach()), rel=1e-9)
    assert fitted.history[-1]["penalty_in_loss"] == pytest.approx(float(own.penalty().detach()) / N, rel=1e-9)


def test_the_example_in_its_documentation():
    import doctest

    module = br.interop.skorch
    assert doctest.testmod(module).attempted >= 4
    assert doctest.testmod(module).failed == 0


def test_names_that_are_no_framework():
    with pytest.raises(AttributeError, match="no attribute 'skorc'; did you mean 'skorch'"):
        br.interop.skorc  # noqa: B018

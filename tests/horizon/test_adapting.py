"""A weight decay for another run: formulas, what keeps the solution under noisy gradients, what is refused."""

from __future__ import annotations

import json
import math
from functools import partial

import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.horizon.noise import noise_share
from tests.versions import HAS_MUON

BEFORE = {"batch_size": 64, "lr": 1e-3, "num_data": 1e6}
adamw = partial(br.adapt_weight_decay, 0.1, optimizer=torch.optim.AdamW, before=BEFORE)


@pytest.mark.parametrize("batch", [1.0, 4.0, 0.25])
@pytest.mark.parametrize("rate", [1.0, 2.0])
@pytest.mark.parametrize("data", [1.0, 3.0])
def test_the_rules(batch, rate, data):
    after = {"batch_size": 64 * batch, "lr": 1e-3 * rate, "num_data": 1e6 * data}
    found = adamw(after=after)
    assert found.weight_decay == pytest.approx(0.1 * math.sqrt(batch) / data, rel=1e-12)
    assert found.keeps_memory == pytest.approx(0.1 * batch / (data * rate), rel=1e-12)
    assert found.copied_rules["weight_decay unchanged"] == 0.1
    assert found.copied_rules["weight_decay with batch size"] == pytest.approx(0.1 * batch)
    assert found.copied_rules["lr x weight_decay kept"] == pytest.approx(0.1 / rate)
    assert found.agree == math.isclose(math.sqrt(batch), rate)
    # Memory in epochs: B/(ηλn).
    assert after["batch_size"] / (after["lr"] * found.keeps_memory * after["num_data"]) == pytest.approx(
        64 / (1e-3 * 0.1 * 1e6)
    )
    coupled = br.adapt_weight_decay(0.1, optimizer="sgd", before=BEFORE, after=after)
    assert coupled.weight_decay == pytest.approx(0.1 / data)
    one, other = (
        br.weight_decay_to_variance(d, int(r["num_data"])) for d, r in ((0.1, BEFORE), (coupled.weight_decay, after))
    )
    assert one == pytest.approx(other)
    assert coupled.regime == "Gaussian"
    assert coupled.keeps_memory == pytest.approx(found.keeps_memory)
    assert br.adapt_weight_decay(0.1, optimizer="adam", before=BEFORE, after=after).keeps_memory is None


def test_scaled_by_roots_belief_and_memory_agree():
    found = adamw(after={"batch_size": 256, "lr": 2e-3, "num_data": 2e6})
    assert found.weight_decay == pytest.approx(0.1 * 2 / 2)
    assert found.agree
    assert found.regime == "not checked"
    assert "was not checked" in found.why


def test_the_length_of_a_run_says_whether_it_is_at_rest():
    after = {"batch_size": 256}
    (unsaid,) = adamw(after=after).notes
    assert unsaid.startswith("With steps or epochs it says whether weights come to rest")
    short = adamw(before={**BEFORE, "steps": 1000}, after=after)
    assert [note.partition(":")[0] for note in short.notes] == ["After", "Before", "After"]
    assert "k is at most 0.1 with weight_decay=0.1:" in short.notes[1]
    assert short.copied_rules["sum of lr x weight_decay kept"] == pytest.approx(0.1)
    assert adamw(before={**BEFORE, "steps": 100_000}, after={"lr": 2e-3}).notes == ()
    # Epochs of the first run are other steps in the second.
    epochs = adamw(before={**BEFORE, "epochs": 10}, after={**after, "epochs": 20})
    assert epochs.copied_rules["sum of lr x weight_decay kept"] == pytest.approx(0.1 * 4 / 2)


def test_a_schedule_says_how_much_of_the_peak_a_run_had():
    after = {"batch_size": 256}
    # Linear from the peak to 0 over T steps: (T + 1)/2 of them at the peak; warmed up over 100: 50.5 more of those.
    linear = adamw(before={**BEFORE, "steps": 1000, "schedule": "linear"}, after={**after, "schedule": "constant"})
    assert "Before: over 1,000 steps k is 0.05 with weight_decay=0.1:" in linear.notes[1]
    assert linear.copied_rules["sum of lr x weight_decay kept"] == pytest.approx(0.1 * 500.5 / 1000)
    warmed = adamw(before={**BEFORE, "steps": 1100, "schedule": "linear", "warmup": 100}, after={"schedule": None})
    assert "Before: over 1,100 steps k is 0.055 with weight_decay=0.1:" in warmed.notes[0]
    assert warmed.copied_rules["sum of lr x weight_decay kept"] == pytest.approx(0.1 * (500.5 + 50.5) / (1000 + 50.5))
    # A factory's: half of the steps at the peak, half at a tenth of it, whatever the peak is.
    tenth = adamw(
        before={**BEFORE, "steps": 200, "schedule": lambda o: torch.optim.lr_scheduler.StepLR(o, 100)},
        after={**after, "lr": 2e-3, "schedule": "constant"},
    )
    assert tenth.copied_rules["sum of lr x weight_decay kept"] == pytest.approx(0.1 / 2 * 110 / 200)


def test_it_says_how_long_the_other_run_was_taken_to_be():
    steps = adamw(before={**BEFORE, "steps": 100_000}, after={"batch_size": 256}).notes
    assert steps[0] == (
        "After: steps as before, so that 6.4 epochs, 100,000 steps become 25.6 epochs, 100,000 steps; pass its own "
        "steps or epochs if not."
    )
    epochs = adamw(before={**BEFORE, "epochs": 6.4}, after={"batch_size": 256}).notes
    assert epochs[0].startswith("After: epochs as before, so that 6.4 epochs, 100,000 steps become 6.4 epochs, 25,000")
    for after in ({"lr": 2e-3}, {"batch_size": 256, "epochs": 6.4}, {"batch_size": 256, "steps": 100_000}):
        notes = adamw(before={**BEFORE, "epochs": 6.4}, after=after).notes
        assert not [note for note in notes if "as before" in note], after
    # Of a coupled decay too; nothing is said where there is no length.
    (said,) = br.adapt_weight_decay(0.1, optimizer="sgd", before={**BEFORE, "steps": 9}, after={"num_data": 3e6}).notes
    assert said.startswith("After: steps as before")
    assert br.adapt_weight_decay(0.1, optimizer="sgd", before=BEFORE, after={"num_data": 3e6}).notes == ()


def test_where_the_sum_counts_more_it_says_which_decay_keeps_it():
    (_, before, after) = adamw(before={**BEFORE, "epochs": 0.1}, after={"batch_size": 256}).notes
    assert before.endswith("counts is the sum of lr x weight_decay more than the belief (weight_decay=0.4 keeps it).")
    assert after.endswith("more than the belief.")
    found = adamw(before={**BEFORE, "epochs": 0.1}, after={"batch_size": 256})
    assert (found.weight_decay, found.keeps_sum, found.advised) == pytest.approx((0.2, 0.4, 0.4))
    assert str(found).endswith("So here: weight_decay=0.4.")
    # At rest, or with no length to tell, it is the belief; of a coupled decay always.
    resting = adamw(before={**BEFORE, "epochs": 100}, after={"batch_size": 256})
    assert (resting.keeps_sum, resting.advised) == pytest.approx((0.4, 0.2))
    assert (adamw(after={"batch_size": 256}).keeps_sum, adamw(after={"batch_size": 256}).advised) == (None, 0.2)
    coupled = br.adapt_weight_decay(0.1, optimizer="sgd", before={**BEFORE, "steps": 9}, after={"num_data": 2e6})
    assert coupled.advised == coupled.weight_decay == pytest.approx(0.05)


def test_a_bound_stays():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    found = br.adapt_weight_decay(0.1, optimizer="muon", before=BEFORE, after={"batch_size": 256, "num_data": 2e6})
    assert found.weight_decay == 0.1
    assert found.regime == "bound"
    assert "singular values" in found.why


def test_it_prints_and_serialises():
    found = adamw(after={"batch_size": 256})
    assert "keeps the belief" in str(found)
    assert json.loads(found.to_json())["weight_decay"] == pytest.approx(0.2)
    assert json.loads(found.to_json())["agree"] is False
    assert "<table" in found._repr_html_()


def test_several_that_share_a_model_in_one_call():
    both = [torch.optim.Muon, torch.optim.AdamW] if HAS_MUON else ["sgd", torch.optim.AdamW]
    before, after = {**BEFORE, "lr": [0.02, 3e-4]}, {"batch_size": 256, "lr": [0.04, 3e-4], "num_data": 2e6}
    found = br.adapt_weight_decay([0.1, 0.2], optimizer=both, before=before, after=after)
    assert [one.optimizer for one in found] == ["Muon" if HAS_MUON else "SGD", "AdamW"]
    alone = [
        br.adapt_weight_decay(decay, optimizer=one, before={**before, "lr": first}, after={**after, "lr": second})
        for decay, one, first, second in zip([0.1, 0.2], both, [0.02, 3e-4], [0.04, 3e-4], strict=True)
    ]
    assert found == alone
    assert found[0].regime == ("bound" if HAS_MUON else "Gaussian")
    assert found[1].weight_decay == pytest.approx(0.2 * 2.0 / 2.0)
    # One number for all.
    shared = br.adapt_weight_decay(0.1, optimizer=tuple(both), before=BEFORE, after={"batch_size": 256})
    assert [one.before for one in shared] == [0.1, 0.1]
    assert shared[1] == adamw(after={"batch_size": 256})


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"optimizer": []}, "optimizer: expected at least one"),
        ({"weight_decay": [0.1]}, "weight_decay: expected one number, or one of each of 2, got 1"),
        ({"after": {"lr": [1.0, 2.0, 3.0]}}, "after lr: expected one number, or one of each of 2, got 3"),
        ({"before": 3}, "before: expected a mapping"),
    ],
)
def test_what_of_several_is_refused(given, match):
    arguments = {"weight_decay": 0.1, "optimizer": ["sgd", "adamw"], "before": BEFORE, "after": {}, **given}
    with pytest.raises(br.InvalidArgumentError, match=match):
        br.adapt_weight_decay(**arguments)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"after": {"batch": 3}}, br.InvalidArgumentError, "after: expected batch_size, .* got 'batch'; did"),
        ({"before": {"lr": 1.0}}, br.InvalidArgumentError, "before: expected batch_size, num_data too"),
        ({"before": 3}, br.InvalidArgumentError, "before: expected a mapping"),
        ({"after": {"lr": 0.0}}, br.InvalidArgumentError, "after lr: expected a value > 0"),
        ({"after": {"batch_size": 1e9}}, br.InvalidArgumentError, "after batch_size: expected at most num_data"),
        ({"after": {"steps": 3, "epochs": 1}}, br.InvalidArgumentError, "after: pass steps or epochs"),
        ({"before": {**BEFORE, "schedule": "cosine"}}, br.InvalidArgumentError, "before schedule: plays no part"),
        ({"before": {**BEFORE, "steps": 9, "schedule": "cos"}}, br.InvalidArgumentError, "before schedule: expected"),
        ({"before": {**BEFORE, "steps": 9, "schedule": [1.0]}}, br.InvalidArgumentError, "before schedule: expected"),
        ({"after": {"steps": 9, "warmup": 9}}, br.InvalidArgumentError, "after warmup: expected fewer steps"),
        ({"after": {"steps": 1e9, "warmup": 9}}, br.InvalidArgumentError, "after steps: expected 1 to 20,000,000"),
        ({"weight_decay": -1.0}, br.InvalidArgumentError, "weight_decay: expected"),
        ({"optimizer": torch.optim.Adafactor}, br.UnsupportedError, "Adafactor: expected an optimizer"),
        ({"optimizer": torch.optim.Rprop}, br.UnsupportedError, "Rprop: expected an optimizer"),
    ],
)  # fmt: skip
def test_what_it_refuses(given, error, match):
    arguments = {"weight_decay": 0.1, "optimizer": torch.optim.AdamW, "before": BEFORE, "after": {}, **given}
    with pytest.raises(error, match=match):
        br.adapt_weight_decay(**arguments)


# -- with noisy gradients ----------------------------------------------------------------------------------------------


def stepped(optimizer, weight, signal, noise, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        weight.grad = signal + noise * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        optimizer.step()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize(("betas", "steps"), [((0.9, 0.99), 400), ((0.9, 0.999), 60), ((0.5, 0.9), 200)])
def test_the_share_of_noise_is_read_from_the_state(share, betas, steps):
    weight = nn.Parameter(torch.zeros(20_000, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], betas=betas)
    assert noise_share(optimizer) is None
    stepped(optimizer, weight, math.sqrt(1.0 - share), math.sqrt(share), steps)
    assert noise_share(optimizer) == pytest.approx(share, abs=0.02)


def test_where_gradients_are_signal_it_is_refused():
    weight = nn.Parameter(torch.zeros(2000, dtype=torch.float64))
    for share, batch, match in (
        (0.7, 128, "70 % of their square is. Then"),
        (0.97, 4096, "will be at the other"),
    ):
        optimizer = torch.optim.AdamW([weight])
        stepped(optimizer, weight, math.sqrt(1.0 - share), math.sqrt(share), 200)
        with pytest.raises(br.UnsupportedError, match=match):
            br.adapt_weight_decay(0.1, optimizer=optimizer, before=BEFORE, after={"batch_size": batch})
    found = br.adapt_weight_decay(0.1, optimizer=optimizer, before=BEFORE, after={"batch_size": 128})
    assert found.regime == "noise"
    assert found.noise_share == pytest.approx(0.97, abs=0.02)
    assert found.weight_decay == pytest.approx(0.1 / math.sqrt(1.0 - found.noise_share + found.noise_share / 2.0))


def test_a_decay_that_holds_weights_at_its_bound_is_refused_by_its_own_state():
    weight = nn.Parameter(torch.zeros(500, dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=0.02, weight_decay=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1500):
        weight.grad = weight.detach() - 3.0 + 0.3 * torch.randn(500, generator=generator, dtype=torch.float64)
        optimizer.step()
    with pytest.raises(br.UnsupportedError, match="mostly noise"):
        br.adapt_weight_decay(0.5, optimizer=optimizer, before=BEFORE, after={"batch_size": 256})


def regression(n=4000, d=8, noise=20.0):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, d, generator=generator, dtype=torch.float64)
    w = torch.randn(d, generator=generator, dtype=torch.float64)
    return X, X @ w + noise * torch.randn(n, generator=generator, dtype=torch.float64)


def at_rest(X, y, run, decay, seed):
    """The mean of the second half of a run of AdamW on minibatches."""
    generator, batch = torch.Generator().manual_seed(seed), int(run["batch_size"])
    weight = nn.Parameter(torch.zeros(X.shape[1], dtype=torch.float64))
    optimizer = torch.optim.AdamW([weight], lr=run["lr"], weight_decay=decay)
    steps, total = int(6.0 / (run["lr"] * decay)), torch.zeros_like(weight.detach())
    for step in range(steps):
        rows = torch.randint(len(X), (batch,), generator=generator)
        weight.grad = X[rows].T @ (X[rows] @ weight.detach() - y[rows]) / batch
        optimizer.step()
        if step >= steps // 2:
            total += weight.detach()
    return total / (steps - steps // 2), optimizer


@pytest.mark.slow
@pytest.mark.parametrize(
    "after",
    [{"batch_size": 32}, {"batch_size": 128}, {"lr": 0.04}, {"batch_size": 32, "lr": 0.04}],
    ids=["batch x 4", "batch x 16", "lr x 2", "batch x 4, lr x 2"],
)
def test_the_solution_stays_where_the_copied_rules_move_it(after):
    X, y = regression()
    before = {"batch_size": 8, "lr": 0.02, "num_data": len(X)}
    first = [at_rest(X, y, before, 0.05, seed) for seed in range(4)]
    middle = torch.stack([mean for mean, _ in first]).mean(0)

    def moved(decay):
        run = {**before, **after}
        found = torch.stack([at_rest(X, y, run, decay, seed)[0] for seed in (10, 11, 12)]).mean(0)
        return float((found - middle).norm() / middle.norm())

    seeds = max(float((mean - middle).norm() / middle.norm()) for mean, _ in first)
    adapted = br.adapt_weight_decay(0.05, optimizer=first[0][1], before=before, after=after)
    assert adapted.regime == "noise"
    kept = moved(adapted.weight_decay)
    assert kept < 1.2 * seeds
    for name, copied in adapted.copied_rules.items():
        if not math.isclose(copied, adapted.weight_decay, rel_tol=0.01):
            assert moved(copied) > 1.5 * kept, name

"""Hugging Face's Trainer with a prior: the weights of a loop by hand, under clips, accumulation, resuming, adapters."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import SequentialSampler

import bayesreg as br
from tests.interop.common import BATCH, EPOCHS, PRIORS, RATE, STD, N, Net, by_hand, data, gap

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'bayesreg[transformers]'")


class Model(nn.Module):
    """The network, as the Trainer calls it."""

    def __init__(self, seed=0):
        super().__init__()
        self.net = Net(seed)

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Counting(Model):
    """A model that takes the number of examples of a whole window."""

    def forward(self, x, labels=None, **more):
        logits, num_items_in_batch = self.net(x), more.get("num_items_in_batch")
        if num_items_in_batch is None:
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}
        return {"loss": F.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch, "logits": logits}


def examples():
    X, y = data()
    return [{"x": x, "labels": label} for x, label in zip(X, y, strict=True)]


def arguments(folder, **more):
    from transformers import TrainingArguments

    given = {
        "output_dir": str(folder), "use_cpu": True, "report_to": [], "optim": "sgd", "learning_rate": RATE,
        "lr_scheduler_type": "constant", "per_device_train_batch_size": BATCH, "num_train_epochs": EPOCHS,
        "max_grad_norm": 0.0, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "seed": 0,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    return TrainingArguments(**{**given, **more})


def trainer(folder, prior, *, model=None, base=None, num_data=None, more=None, **keywords):
    class Ordered(base or br.interop.transformers.PriorTrainer):
        """In the order of the data."""

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    model = Model() if model is None and "model_init" not in keywords else model
    own = {"prior": prior, "num_data": num_data} if base is None else {}
    return Ordered(model=model, args=arguments(folder, **(more or {})), train_dataset=examples(), **own, **keywords)


def weights(made):
    return [p.detach().clone() for p in made.model.parameters()]


def over(kind):
    made = PRIORS[kind]()
    return {"*": br.Gaussian.centered_at(Model(seed=9), STD)} if kind == "centred" else made


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("kind", PRIORS)
def test_it_is_the_loop_by_hand(kind, limit, tmp_path):
    made = trainer(tmp_path, over(kind), more={"max_grad_norm": limit})
    made.train()
    expected = by_hand(PRIORS[kind](), clip=limit or None)
    assert gap(weights(made), expected) < 1e-12
    if kind == "laplace":
        zeros = [int((w == 0.0).sum()) for w in weights(made)]
        assert zeros == [int((w == 0.0).sum()) for w in expected]
        assert sum(zeros) > 0


def test_a_gaussian_is_the_trainers_own_weight_decay(tmp_path):
    from transformers import Trainer

    # The Trainer decays no biases.
    decayed = trainer(tmp_path, None, base=Trainer, more={"weight_decay": 1.0 / (N * STD**2)})
    mine = trainer(tmp_path, br.Gaussian(STD))
    for one in (decayed, mine):
        one.train()
    assert gap(weights(mine), weights(decayed)) == 0.0
    assert {row[2] for row in mine.prior_handle.describe().rows} == {"native", "none"}


def test_adamw_is_the_default_and_is_coupled(tmp_path):
    made = trainer(tmp_path, br.Gaussian(STD), more={"optim": "adamw_torch", "learning_rate": 0.01})
    made.train()
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    prior = br.ModelPrior(model, br.Gaussian(STD))
    X, y = data()
    for _ in range(EPOCHS):
        for first in range(0, N, BATCH):
            optimizer.zero_grad()
            (
                F.cross_entropy(model(X[first : first + BATCH]), y[first : first + BATCH]) + prior.penalty() / N
            ).backward()
            optimizer.step()
    assert gap(weights(made), [p.detach() for p in model.parameters()]) < 1e-12


def windows(rows, count, net, penalty, n):
    """The mean over each window of micro-batches, also the short last one."""
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    X, y = data()
    for _ in range(EPOCHS):
        starts = list(range(0, N, rows))
        for at in range(0, len(starts), count):
            optimizer.zero_grad()
            first, last = starts[at], min(N, starts[at] + rows * count)
            (F.cross_entropy(net(X[first:last]), y[first:last]) + penalty(net) / n).backward()
            optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def test_accumulation_with_a_short_last_window(tmp_path):
    own = over("centred")
    more = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 3}
    made = trainer(tmp_path, own, model=Counting(), more=more)
    made.train()

    def penalty(net):
        return br.ModelPrior(net, PRIORS["centred"]()).penalty()

    expected = windows(16, 3, Net(), penalty, N)
    assert gap(weights(made), expected) < 1e-12

    # The trap: a penalty in compute_loss counts once for each micro-batch, where the model divides by the window.
    from transformers import Trainer

    class Naive(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            return loss + br.ModelPrior(self.model, own).penalty() / N

    naive = trainer(tmp_path, None, base=Naive, model=Counting(), more=more)
    naive.train()
    assert gap(weights(naive), expected) > 1e-2


@pytest.mark.parametrize("kind", PRIORS)
def test_a_resumed_run_is_the_unbroken_one_to_the_bit(kind, tmp_path):
    def make(epochs, model=None):
        more = {
            "num_train_epochs": epochs, "save_strategy": "epoch", "optim": "adamw_torch", "learning_rate": 0.01,
            "max_grad_norm": 1.0,
        }  # fmt: skip
        return trainer(tmp_path / f"{kind}{epochs}", over(kind), model=model, more=more)

    whole = make(4)
    whole.train()
    half = make(2)
    half.train()
    again = make(4)
    again.train(resume_from_checkpoint=str(next((tmp_path / f"{kind}2").glob("checkpoint-6"))))
    assert all(map(torch.equal, weights(again), weights(whole)))


def test_the_centre_is_the_model_as_it_came(tmp_path):
    """Also in a run that is resumed, whose weights have moved since; and where the model came with others."""
    more = {"save_strategy": "epoch", "num_train_epochs": 1}
    made = trainer(tmp_path, f"pretrained({STD})", model=Model(seed=3), more=more)
    start = weights(made)
    made.train()
    for seed in (3, 4):
        again = trainer(tmp_path, f"pretrained({STD})", model=Model(seed), more={**more, "num_train_epochs": 2})
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        centres = [entry.prior.centre() for entry in again.model_prior if entry.parameter.ndim > 1]
        assert len(centres) == 2
        assert all(map(torch.equal, centres, [w for w in start if w.ndim > 1]))


def test_a_resumed_run_has_the_centre_and_the_n_that_it_had(tmp_path):
    """What is given in so many words is not replaced by the checkpoint's, nor taken in place of it, in silence."""
    more = {"save_strategy": "epoch", "num_train_epochs": 1}
    trainer(tmp_path, over("centred"), more=more).train()
    for prior, n, words in (
        ({"*": br.Gaussian.centered_at(Model(seed=10), STD)}, None, "written under another prior"),
        (over("centred"), 6000, r"the checkpoint was trained at s = 0.0166667 \(n = 60 of a mean loss\)"),
    ):
        again = trainer(tmp_path, prior, num_data=n, more={**more, "num_train_epochs": 2})
        with pytest.raises(br.InvalidArgumentError, match=words):
            again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


class Own(br.interop.transformers.PriorTrainer):
    """An optimizer of one's own, as for rates by layer, and the order of the data."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, *_):
        if self.optimizer is None:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        return self.optimizer


@pytest.mark.parametrize("limit", [0.0, 0.1])
@pytest.mark.parametrize("kind", PRIORS)
def test_an_optimizer_that_a_subclass_makes_has_the_prior(kind, limit, tmp_path):
    made = Own(model=Model(), args=arguments(tmp_path, max_grad_norm=limit), train_dataset=examples(), prior=over(kind))
    made.train()
    assert gap(weights(made), by_hand(PRIORS[kind](), clip=limit or None)) < 1e-12


def test_data_that_are_replaced_are_counted_again(tmp_path):
    made = trainer(tmp_path, over("l2"))
    made.train_dataset = examples()[:20]
    made.train()
    assert made.prior_handle.loss_scale.value == pytest.approx(1 / 20)
    words = trainer(tmp_path, "l2(weight_decay=0.01)")
    words.train_dataset = examples()[:20]
    words.train()
    variances = [float(entry.prior.variance()) for entry in words.model_prior if entry.name.endswith("weight")]
    assert variances == pytest.approx([1.0 / (20 * 0.01)] * 2)

    class Loads(br.interop.transformers.PriorTrainer):
        def get_train_dataloader(self):
            return super().get_train_dataloader()

    with pytest.raises(br.InvalidArgumentError, match="get_train_dataloader is overridden"):
        Loads(model=Model(), args=arguments(tmp_path), train_dataset=examples(), prior=over("l2"))
    assert Loads(model=Model(), args=arguments(tmp_path), train_dataset=examples(), prior=over("l2"), num_data=60)


class Stream(torch.utils.data.IterableDataset):
    """Without an end or a first example."""

    def __iter__(self):
        while True:
            yield from examples()


class Sized(Stream):
    """A stream that says how long it is."""

    def __len__(self):
        return N


@pytest.mark.parametrize(
    ("data", "n", "words"),
    [
        (Stream, None, "train_dataset has no length"),
        (Stream, "tokens", "'tokens' counts them in one pass, and train_dataset has no length"),
        (Sized, None, "or no first example to look at"),
    ],
)
def test_streams_are_asked_about(data, n, words, tmp_path):
    args = arguments(tmp_path, max_steps=12)
    make = br.interop.transformers.PriorTrainer
    with pytest.raises(br.InvalidArgumentError, match=words):
        make(model=Model(), args=args, train_dataset=data(), prior=over("l2"), num_data=n)
    made = make(model=Model(), args=args, train_dataset=data(), prior=over("l2"), num_data=N)
    made.train()
    assert gap(weights(made), by_hand(PRIORS["l2"]())) < 1e-12


def test_evaluation_alone_needs_no_data_to_train_on(tmp_path):
    make = br.interop.transformers.PriorTrainer
    made = make(model=Model(), args=arguments(tmp_path), eval_dataset=examples(), prior=f"pretrained({STD})")
    assert made.evaluate()["eval_loss"] > 0.0
    made.train_dataset = examples()
    made.train()
    assert made.prior_handle.loss_scale.value == pytest.approx(1 / N)


def test_looking_at_an_example_draws_nothing(tmp_path):
    """A data set that augments at random is left where it was."""

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, index):
            row = examples()[index]
            return {**row, "x": row["x"] + 0.1 * torch.randn(6, dtype=torch.float64)}

    from transformers import Trainer

    def train(make, **more):
        made = make(model=Model(), args=arguments(tmp_path, **more.pop("own", {})), train_dataset=Noisy(), **more)
        made.train()
        return weights(made)

    decay = {"weight_decay": 1.0 / (N * STD**2)}
    mine = train(br.interop.transformers.PriorTrainer, prior=br.Gaussian(STD))
    assert gap(mine, train(Trainer, own=decay)) == 0.0


def test_a_model_made_anew_has_a_prior_of_its_own(tmp_path):
    made = trainer(tmp_path, f"pretrained({STD})", model_init=lambda: Model(seed=5))
    made.train()
    once = weights(made)
    made.train()
    assert all(map(torch.equal, weights(made), once))
    assert gap(once, [p.detach() for p in Model(seed=5).parameters()]) > 1e-3


def test_what_is_logged_and_saved(tmp_path):
    made = trainer(tmp_path, over("l2"), more={"save_strategy": "epoch", "num_train_epochs": 1})
    made.train()
    logs = [one for one in made.state.log_history if "loss" in one]
    assert len(logs) == 3
    own = br.ModelPrior(made.model, over("l2"))
    assert logs[-1]["prior/log_prior"] == pytest.approx(float(own.log_prob().detach()), rel=1e-9)
    assert logs[-1]["prior/penalty_in_loss"] == pytest.approx(float(own.penalty().detach()) / N, rel=1e-9)
    loaded = br.ModelPrior.load(tmp_path / "checkpoint-3" / "prior.safetensors", Model())
    assert float(loaded.log_prob().detach()) == pytest.approx(
        float(br.ModelPrior(Model(), over("l2")).log_prob().detach())
    )


def test_what_is_refused(tmp_path):
    with pytest.raises(br.InvalidArgumentError, match=r"TrainingArguments.weight_decay=0.1 would count on top"):
        trainer(tmp_path, br.Gaussian(1.0), more={"weight_decay": 0.1})
    with pytest.raises(br.InvalidArgumentError, match=r"expected the width of 'pretrained' as a number"):
        trainer(tmp_path, "pretrained")
    with pytest.raises(br.InvalidArgumentError, match="prior: expected a prior such as"):
        trainer(tmp_path, 3.0)
    made = trainer(tmp_path, over("l2"), more={"save_strategy": "epoch", "num_train_epochs": 1})
    made.train()
    other = trainer(tmp_path, over("laplace"), more={"num_train_epochs": 2})
    with pytest.raises(br.InvalidArgumentError, match="written under another prior"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_n_of_a_mean_over_tokens_must_be_told(tmp_path):
    from transformers import TrainingArguments

    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    tokens = [{"x": torch.zeros(6).double(), "labels": [1, -100, 2]}] * 5
    make = br.interop.transformers.PriorTrainer
    with pytest.raises(br.InvalidArgumentError, match="num_data='tokens'"):
        make(model=Model(), args=args, train_dataset=tokens, prior=br.Gaussian(1.0))
    with pytest.raises(br.InvalidArgumentError, match="expected a number, 'tokens' or a LossScale, got 'token'"):
        make(model=Model(), args=args, train_dataset=tokens, prior=br.Gaussian(1.0), num_data="token")
    made = make(model=Model(), args=args, train_dataset=tokens, prior=br.Gaussian(1.0), num_data="tokens")
    assert made._scale.value == pytest.approx(1.0 / 10)
    told = make(model=Model(), args=args, train_dataset=tokens, prior=br.Gaussian(1.0), num_data=10)
    assert told._scale.value == made._scale.value


@pytest.mark.parametrize(
    ("example", "words"),
    [
        # A collator makes the labels of language models: n would be the number of texts, and the prior too strong.
        ({"input_ids": [1, 2, 3]}, "the examples have no labels, so a collator or the model makes them"),
        ((torch.zeros(6), 1), "the examples have no labels"),
        ({"x": torch.zeros(6), "labels": [0.0, 1.0]}, "an example has several labels"),
        ({"x": torch.zeros(6), "labels": 1, "label": 1}, "an example has labels of several kinds"),
    ],
)
def test_n_that_cannot_be_told_is_refused(example, words, tmp_path):
    args = arguments(tmp_path)
    make = br.interop.transformers.PriorTrainer
    with pytest.raises(br.InvalidArgumentError, match=words):
        make(model=Model(), args=args, train_dataset=[example] * 5, prior=br.Gaussian(1.0))
    assert make(model=Model(), args=args, train_dataset=[example] * 5, prior=br.Gaussian(1.0), num_data=7)


def test_another_width_is_not_taken_from_a_checkpoint_in_silence(tmp_path):
    more = {"save_strategy": "epoch", "num_train_epochs": 1}
    for kind in ("l2", "centred"):
        trainer(tmp_path / kind, over(kind), more=more).train()
        wide = {"*": br.Gaussian(2.0 * STD)} if kind == "l2" else {"*": br.Gaussian.centered_at(Model(9), 2.0 * STD)}
        other = trainer(tmp_path / kind, wide, more={"num_train_epochs": 2})
        with pytest.raises(br.InvalidArgumentError, match="written under another prior"):
            other.train(resume_from_checkpoint=str(tmp_path / kind / "checkpoint-3"))


def test_a_language_model_is_the_loop_by_hand(tmp_path):
    """GPT-2's own loss, shifted, over windows of texts of several lengths; n is the number of its targets."""
    from transformers import GPT2Config, GPT2LMHeadModel

    def make():
        torch.manual_seed(0)
        sizes = {"vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
        dropped = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2LMHeadModel(GPT2Config(**sizes, **dropped, bos_token_id=0, eos_token_id=0)).double()

    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(0, 20, (length,), generator=generator) for length in (8, 6, 7, 5, 8, 4)]
    rows = [{"input_ids": text, "labels": text.clone()} for text in texts]
    with pytest.raises(br.InvalidArgumentError, match="num_data='tokens'"):
        br.interop.transformers.PriorTrainer(
            model=make(), args=arguments(tmp_path), train_dataset=rows, prior=br.Gaussian(0.1)
        )

    def collate(batch):
        def padded(name, value):
            return nn.utils.rnn.pad_sequence([one[name] for one in batch], batch_first=True, padding_value=value)

        mask = (padded("labels", -100) != -100).long()
        return {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100), "attention_mask": mask}

    divided_by = []

    class Ordered(br.interop.transformers.PriorTrainer):
        """In the order of the data."""

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

        def get_batch_samples(self, *args, **keywords):
            found = super().get_batch_samples(*args, **keywords)
            divided_by.append(int(found[1]))
            return found

    more = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    made = Ordered(
        model=make(), args=arguments(tmp_path, **more), train_dataset=rows, data_collator=collate,
        prior=br.Gaussian(0.1), num_data="tokens",
    )  # fmt: skip
    made.train()
    # It divides a window by all labels, or by those that are targets: which, differs by version and model.
    n = round(1.0 / made._scale.value)
    assert sum(divided_by) == 2 * n
    left_out = (sum(map(len, texts)) - n) // len(texts)
    assert n == sum(len(text) - left_out for text in texts)
    model = make()
    prior = br.ModelPrior(model, br.Gaussian(0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(2):
        for window in (texts[:4], texts[4:]):
            optimizer.zero_grad()
            summed = sum(
                F.cross_entropy(model(text[None]).logits[0, :-1], text[1:], reduction="sum") for text in window
            )
            (summed / sum(len(text) - left_out for text in window) + prior.penalty() / n).backward()
            optimizer.step()
    # Its loss is computed in single precision, whatever the weights are.
    assert gap(weights(made), [p.detach() for p in model.parameters()]) < 1e-7


@pytest.mark.parametrize("limit", [0.0, 0.1])
@pytest.mark.parametrize("kind", PRIORS)
def test_gradients_that_a_scaler_holds(kind, limit, tmp_path):
    """Accelerate makes one on accelerators only, so it is put in by hand; float64 is not cast to 16 bits."""

    def train(scaler):
        made = trainer(tmp_path, over(kind), more={"max_grad_norm": limit})
        if scaler is not None:
            made.accelerator.scaler, made.accelerator.native_amp = scaler, True
            made.accelerator.state._mixed_precision = "fp16"
        made.train()
        return weights(made)

    scaled = train(torch.amp.GradScaler("cpu", init_scale=2.0**10))
    assert gap(scaled, train(None)) < 1e-12
    assert gap(scaled, by_hand(PRIORS[kind](), clip=limit or None)) < 1e-12


def test_bfloat16(tmp_path):
    def train(prior, **more):
        model = Model().float()
        rows = [{"x": x.float(), "labels": label} for x, label in zip(*data(), strict=True)]
        args = arguments(tmp_path, seed=3, max_grad_norm=0.5, **more)
        made = br.interop.transformers.PriorTrainer(model=model, args=args, train_dataset=rows, prior=prior)
        made.train()
        return weights(made)

    strong = br.Gaussian.centered_at(Model(seed=9).float(), 0.2)
    wide, narrow = train({"*": strong}), train({"*": strong}, bf16=True)
    assert 0.0 < gap(narrow, wide) < 2e-2
    assert gap(wide, train({"*": br.Gaussian(100.0)})) > 0.1


def test_adapters(tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    adapted = peft.get_peft_model(Model().float(), peft.LoraConfig(r=2, lora_alpha=4, target_modules=["net.0"]))
    X, y = data()
    rows = [{"x": x.float(), "labels": label} for x, label in zip(X, y, strict=True)]
    made = br.interop.transformers.PriorTrainer(
        model=adapted, args=arguments(tmp_path, max_grad_norm=1.0, label_names=["labels"]), train_dataset=rows,
        prior="lora(0.02)",
    )  # fmt: skip
    made.train()
    assert "update" in str(made.prior_handle.describe())
    assert made.model_prior.penalty() > 0


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_adapters_that_begin_off_zero_are_asked_about(start, tmp_path):
    """Their start was subtracted from the weights, so a prior about no update would pull away from these."""
    peft = pytest.importorskip("peft")
    args = arguments(tmp_path, label_names=["labels"])
    rows = [{"x": x.float(), "labels": label} for x, label in zip(*data(), strict=True)]

    def make(prior):
        config = peft.LoraConfig(r=2, target_modules=["net.0"], init_lora_weights=start)
        adapted = peft.get_peft_model(Model().float(), config)
        return br.interop.transformers.PriorTrainer(model=adapted, args=args, train_dataset=rows, prior=prior)

    with pytest.raises(br.InvalidArgumentError, match="could be about no update or about this one; pass a function"):
        make("lora(0.02)")
    own = make(lambda model: br.transfer.lora_prior(model, 0.02, reference=model))
    assert float(own.model_prior.penalty().detach()) == pytest.approx(0.0, abs=1e-6)


def test_what_is_trained_beside_adapters_needs_a_prior(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["net.0"], modules_to_save=["net.2"])
    args = arguments(tmp_path, label_names=["labels"])
    rows = [{"x": x.float(), "labels": label} for x, label in zip(*data(), strict=True)]

    def train(prior):
        adapted = peft.get_peft_model(Model().float(), config)
        made = br.interop.transformers.PriorTrainer(model=adapted, args=args, train_dataset=rows, prior=prior)
        made.train()
        return made.model_prior

    with pytest.raises(br.CoverageError, match=r"is trained beside the adapters.*prior=lambda model: br.transfer"):
        train("lora(0.02)")
    over = train(lambda model: br.transfer.lora_prior(model, 0.02, head=br.Gaussian(1.0)))
    assert any("net.2" in entry.name and entry.prior.family == "Gaussian" for entry in over if entry.prior is not None)


def test_an_optimizer_of_ones_own_and_a_second_training(tmp_path):
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    made = trainer(tmp_path, over("centred"), model=model, optimizers=(optimizer, None))
    made.train()
    assert gap(weights(made), by_hand(PRIORS["centred"](), momentum=0.9)) < 1e-12
    made.train()
    assert gap(weights(made), by_hand(PRIORS["centred"](), momentum=0.9, epochs=2 * EPOCHS)) < 1e-12


def test_a_function_of_the_model_and_words_relative_to_n(tmp_path):
    made = trainer(tmp_path, lambda model: br.ModelPrior(model, over("l2")))
    made.train()
    assert gap(weights(made), by_hand(PRIORS["l2"]())) < 1e-12
    for keywords in ({}, {"model_init": partial(Model, 0)}):
        words = trainer(tmp_path, "l2(weight_decay=0.01)", num_data=1000, **keywords)
        variances = [float(entry.prior.variance()) for entry in words.model_prior if entry.name.endswith("weight")]
        assert variances == pytest.approx([1.0 / (1000 * 0.01)] * 2)


def test_the_mixin_on_another_trainer(tmp_path):
    from transformers import Trainer

    class Other(Trainer):
        """As TRL's are: a trainer with a loss of its own."""

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    class Mine(br.interop.transformers.PriorMixin, Other):
        """Both."""

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

    args = arguments(tmp_path, max_grad_norm=0.1)
    made = Mine(model=Model(), args=args, train_dataset=examples(), prior=over("centred"))
    made.train()
    assert gap(weights(made), by_hand(PRIORS["centred"](), clip=0.1)) < 1e-12

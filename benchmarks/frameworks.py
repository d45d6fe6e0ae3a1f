"""What does a prior cost per step in the frameworks people train in, beside the framework alone?"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import skorch
import torch
from _common import bootstrap, interleaved, write
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertModel, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as hf_logging

import bayesreg as br

ROUNDS, STEPS, BATCH, RATE = 15, 100, 64, 1e-3
PRIORS = {
    "Gaussian about 0": lambda model: br.ModelPrior(model, br.Gaussian(0.5)),
    "Gaussian about its start": lambda model: br.ModelPrior(model, br.Gaussian.centered_at(model, 0.5)),
    "Laplace": lambda model: br.ModelPrior(model, br.Laplace(0.5)),
}


class MLP(nn.Sequential):
    """9,610 weights, where everything beside the network shows."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


class Transformer(nn.Module):
    """106,058 weights in 39 tensors, over the 64 pixels of a digit."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=17, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
            max_position_embeddings=64,
        )  # fmt: skip
        self.body, self.head = BertModel(config, add_pooling_layer=False), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(input_ids=x.long()).last_hidden_state.mean(1))


class Labelled(nn.Module):
    """A network as Hugging Face's Trainer calls it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def data() -> TensorDataset:
    X, y = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(X[:1280], dtype=torch.float32), torch.tensor(y[:1280]))


DATA = data()
ROWS = [{"x": x, "labels": y} for x, y in DATA]


def hugging_face(net: nn.Module, steps: int, prior: Any) -> Callable[[], object]:
    args = TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=RATE,
        report_to=[], disable_tqdm=True, save_strategy="no", logging_strategy="no", use_cpu=True,
        dataloader_pin_memory=False, optim="adamw_torch",
    )  # fmt: skip
    model = Labelled(net)
    if prior is None:
        trainer: Any = Trainer(model=model, args=args, train_dataset=ROWS)
    else:
        trainer = br.interop.transformers.PriorTrainer(model=model, args=args, train_dataset=ROWS, prior=prior)
    trainer.remove_callback(PrinterCallback)
    return trainer.train


class Module(pl.LightningModule):
    """A network as Lightning trains it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=0.0)


def in_lightning(net: nn.Module, steps: int, prior: Any) -> Callable[[], object]:
    callbacks = [] if prior is None else [br.interop.lightning.PriorCallback(prior)]
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks, gradient_clip_val=1.0,
    )  # fmt: skip
    module, loader = Module(net), DataLoader(DATA, batch_size=BATCH, shuffle=True)
    return lambda: trainer.fit(module, loader)


def in_skorch(net: nn.Module, steps: int, prior: Any) -> Callable[[], object]:
    own = [] if prior is None else [("prior", br.interop.skorch.PriorCallback(prior))]
    clip = ("clip", skorch.callbacks.GradientNormClipping(1.0))
    made = skorch.NeuralNetClassifier(
        net, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.AdamW, optimizer__weight_decay=0.0, lr=RATE,
        max_epochs=steps * BATCH // len(DATA) + 1, batch_size=BATCH, train_split=None, callbacks=[*own, clip],
        verbose=0,
    )  # fmt: skip
    return lambda: made.fit(DATA.tensors[0], DATA.tensors[1])


FRAMEWORKS = {"Hugging Face": hugging_face, "Lightning": in_lightning, "skorch": in_skorch}


def variants(start: Callable[..., Any], network: type[nn.Module], steps: int) -> dict[str, Callable[[], object]]:
    """Return a training without a prior and one with each; what is made before it is not timed."""

    def variant(prior: Any) -> Callable[[], object]:
        ready: list[Callable[[], object]] = []

        def train() -> object:
            return ready.pop()()

        def fresh() -> None:
            torch.manual_seed(0)
            ready.append(start(network(), steps, prior))

        train.fresh = fresh  # type: ignore[attr-defined]
        return train

    return {"alone": variant(None), **{name: variant(prior) for name, prior in PRIORS.items()}}


def main() -> None:
    """Print the table."""
    hf_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for network, steps in ((MLP, 3 * STEPS), (Transformer, STEPS // 5)):
        for framework, start in FRAMEWORKS.items():
            times = interleaved(variants(start, network, steps), ROUNDS, warmup=1, clock=time.process_time)
            alone = sorted(times["alone"])[ROUNDS // 2] / steps * 1e3
            row: dict[str, object] = {"network": network.__name__, "in": framework, "alone (ms a step)": f"{alone:.2f}"}
            for name in PRIORS:
                middle, low, high = bootstrap(times, name, "alone")
                row[name] = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            rows.append(row)
    write(rows, __doc__ or "")


if __name__ == "__main__":
    main()

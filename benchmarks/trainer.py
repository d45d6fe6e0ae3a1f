"""What does a trainer cost? `br.MAPTrainer` beside a bare loop, one with `br.attach`, and the trainers of others.

    BAYESREG_DATA=... python benchmarks/trainer.py --json trainer.json

All train one network over one DataLoader, whole runs from set-up to result, interleaved in one process; seconds are
of the processor on one thread. The prior is a Gaussian about given weights, as a quadratic in the loss where a trainer
knows no other place for it ("plain": without any). Lightning, Hugging Face's Trainer, skorch and Pyro are measured
where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib.util
import io
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _common import bootstrap, interleaved, machine, markdown
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import bayesreg as br

LR, SCALE = 1e-3, 0.1


class Task:
    """A network, its data, and how long it is trained.

    Args:
        make: Builds the network.
        inputs: The examples.
        targets: Their classes.
        batch_size: Of the loader.
        epochs: Passes.
    """

    def __init__(
        self, make: Callable[[], nn.Module], inputs: Tensor, targets: Tensor, batch_size: int, epochs: int
    ) -> None:
        self.make, self.data, self.batch_size, self.epochs = make, TensorDataset(inputs, targets), batch_size, epochs
        self.centre = {name: p.detach().clone() for name, p in self.network().named_parameters()}

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make()

    def loader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(0)
        return DataLoader(self.data, batch_size=self.batch_size, shuffle=True, generator=generator)

    @property
    def prior(self) -> br.Gaussian:
        return br.Gaussian.centered_at(self.centre, scale=SCALE)


def digits() -> Task:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    make = lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))  # noqa: E731
    return Task(make, torch.tensor(X[:1280]).float() / 16, torch.tensor(y[:1280]), 64, 20)


class Block(nn.Module):
    """Two convolutions and what goes around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.around(x))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2),
        Block(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def fashion() -> Task | None:
    root = os.environ.get("BAYESREG_DATA")
    if root is None:
        print("fashion_mnist: skipped, BAYESREG_DATA is not set")
        return None
    folder = Path(root) / "fashion_mnist"
    images = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    X = torch.frombuffer(bytearray(images), dtype=torch.uint8).reshape(-1, 1, 28, 28)[:1920].float() / 255
    y = torch.frombuffer(bytearray(labels), dtype=torch.uint8)[:1920].long()
    return Task(resnet, X, y, 64, 1)


# -- the ways to train it ----------------------------------------------------------------------------------


def loop(task: Task, way: str) -> None:
    model, loader, loss_of = task.network(), task.loader(), nn.CrossEntropyLoss()
    n = len(task.data)
    handle = None
    if way == "attach":
        prior = br.ModelPrior(model, task.prior)
        optimizer = torch.optim.Adam(prior.param_groups(), lr=LR)
        handle = br.attach(optimizer, prior, num_data=n)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    weights = [(p, task.centre[name]) for name, p in model.named_parameters() if name.endswith("weight")]
    for _ in range(task.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            if way == "penalty":
                loss = loss + sum(((p - c) ** 2).sum() for p, c in weights) / (2 * SCALE**2 * n)
            loss.backward()
            optimizer.step()
    if handle is not None:
        handle.remove()


def map_trainer(task: Task, **how: Any) -> None:
    trainer = br.MAPTrainer(
        task.network(), task.prior, br.likelihoods.Categorical(), optimizer=partial(torch.optim.Adam, lr=LR),
        max_epochs=task.epochs, progress=False, **how,
    )  # fmt: skip
    trainer.fit(task.loader())


def lightning_trainer(task: Task) -> None:
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = task.network()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.net.parameters(), lr=LR)

    trainer = lightning.Trainer(
        max_epochs=task.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), task.loader())


def hugging_face(task: Task) -> None:
    import transformers

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = task.network()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": F.cross_entropy(self.net(x), labels)}

    transformers.utils.logging.set_verbosity_error()
    rows = [{"x": x, "labels": y} for x, y in zip(*task.data.tensors, strict=True)]
    # It prints its own summary.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=task.epochs, per_device_train_batch_size=task.batch_size,
            learning_rate=LR, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
            max_grad_norm=0.0, lr_scheduler_type="constant",
        )  # fmt: skip
        transformers.Trainer(Module(), arguments, train_dataset=rows).train()


def skorch_net(task: Task) -> None:
    import skorch

    net = skorch.NeuralNetClassifier(
        task.network(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=LR, max_epochs=task.epochs,
        batch_size=task.batch_size, train_split=None, verbose=0, iterator_train__shuffle=True,
    )  # fmt: skip
    net.fit(task.data, y=None)


def pyro_svi(task: Task) -> None:
    import pyro
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoDelta
    from pyro.optim import Adam

    network, n = task.network(), len(task.data)
    sites = {name: p for name, p in network.named_parameters() if name.endswith("weight")}

    def model(x: Tensor, y: Tensor) -> None:
        drawn = {
            name: pyro.sample(name, pyro.distributions.Normal(task.centre[name], SCALE).to_event(p.ndim))
            for name, p in sites.items()
        }
        output = torch.func.functional_call(network, drawn, (x,))
        with pyro.plate("data", n, subsample=x):
            pyro.sample("y", pyro.distributions.Categorical(logits=output), obs=y)

    pyro.clear_param_store()
    svi = SVI(model, AutoDelta(model), Adam({"lr": LR}), Trace_ELBO())
    for _ in range(task.epochs):
        for x, y in task.loader():
            svi.step(x, y)


def ways(task: Task) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {
        "bare loop": partial(loop, task, "bare"),
        "loop with br.attach": partial(loop, task, "attach"),
        "loop, penalty in the loss": partial(loop, task, "penalty"),
        "MAPTrainer": partial(map_trainer, task),
        "MAPTrainer(measure=False)": partial(map_trainer, task, measure=False),
    }
    others = {
        "Lightning, plain": ("lightning", lightning_trainer),
        "Hugging Face, plain": ("transformers", hugging_face),
        "skorch, plain": ("skorch", skorch_net),
        "Pyro SVI, AutoDelta": ("pyro", pyro_svi),
    }
    for name, (package, run) in others.items():
        if importlib.util.find_spec(package) is None:
            print(f"{name}: skipped, {package} is not installed")
        else:
            found[name] = partial(run, task)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="Where to write all seconds.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {}
    for name, task in {"digits, MLP 64-128-10": digits(), "Fashion-MNIST, ResNet": fashion()}.items():
        if task is None:
            continue
        times = interleaved(ways(task), arguments.rounds, warmup=1, clock=time.process_time)
        rows = []
        for way in times:
            row: dict[str, object] = {"way": way}
            for base in ("bare loop", "loop with br.attach"):
                ratio, low, high = bootstrap(times, way, base)
                row[f"of a {base}"] = f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
            rows.append(row)
        steps = task.epochs * len(task.loader())
        print(f"\n{name}, {steps} steps, {machine()}: seconds of the processor, median ratio within a round [95 %]")
        print(markdown(rows))
        results[name] = times
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "seconds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

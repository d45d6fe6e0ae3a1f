"""The snippets of docs/libraries.md that need another library, run with a check: python examples/other_libraries.py.

Each section runs where its library is installed, and says so where it is not.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import tempfile
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "torch")

import torch
from sklearn.datasets import load_diabetes
from torch import nn

import bayesreg as br

NOISE, SCALE = 0.7, 0.2


def data() -> tuple[torch.Tensor, torch.Tensor]:
    X, y = (torch.as_tensor(part) for part in load_diabetes(return_X_y=True))
    return (X - X.mean(0)) / X.std(0), ((y - y.mean()) / y.std())[:, None]


def fitted(loc: torch.Tensor | float = 0.0) -> tuple[nn.Module, br.ModelPrior]:
    """A linear model at its MAP; the prior is on everything, as laplace-torch's and posteriors' are."""
    X, y = data()
    model = nn.Linear(10, 1).double()
    prior = br.ModelPrior(model, {"weight": br.Gaussian(SCALE, loc=loc), "bias": br.Gaussian(SCALE)})
    br.MAPTrainer(model, prior, br.likelihoods.Gaussian(NOISE), optimizer="lbfgs", progress=False).fit((X, y))
    return model, prior


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max().detach())


def laplace_torch() -> str:
    from laplace import Laplace

    X, y = data()
    torch.manual_seed(0)
    model, prior = fitted(loc=0.1 * torch.randn(1, 10, dtype=torch.float64))
    centre = torch.cat([prior[name].centre().expand(p.shape).reshape(-1) for name, p in model.named_parameters()])
    torch.set_default_dtype(torch.float64)  # laplace-torch makes its tensors in the default dtype
    try:
        la = Laplace(
            model, "regression", subset_of_weights="all", hessian_structure="full",
            prior_precision=1 / SCALE**2, prior_mean=centre, sigma_noise=NOISE,
        )  # fmt: skip
        la.fit(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, y), batch_size=64))
    finally:
        torch.set_default_dtype(torch.float32)
    design = torch.cat([X, torch.ones_like(y)], 1)
    truth = design.T @ design / NOISE**2 + torch.eye(11).double() / SCALE**2
    # Its penalty at the mean is the prior's, and its precision that of the closed form.
    gaps = gap(0.5 * la.scatter, prior.penalty()), gap(la.posterior_precision, truth)
    return f"penalty differs by {gaps[0]:.0e}, precision by {gaps[1]:.0e}"


def posteriors() -> str:
    import posteriors as ps

    X, y = data()
    model, prior = fitted()
    likelihood, n = br.likelihoods.Gaussian(NOISE), len(y)

    def log_posterior(params, batch):
        inputs, target = batch
        output = torch.func.functional_call(model, params, inputs)
        return -likelihood.nll(output, target).mean() + prior.log_prob(params) / n, torch.tensor([])

    params = {name: p.detach() for name, p in model.named_parameters()}
    transform = ps.laplace.dense_hessian.build(log_posterior)
    state, _ = transform.update(transform.init(params), (X, y))
    design = torch.cat([torch.ones_like(y), X], 1)  # it orders parameters by name: the bias first
    truth = design.T @ design / NOISE**2 + torch.eye(11).double() / SCALE**2
    slope = torch.func.grad(lambda p: log_posterior(p, (X, y))[0])(params)
    at_rest = max(float(g.abs().max()) for g in slope.values())
    return f"gradient at the MAP {at_rest:.0e}, precision times n differs by {gap(n * state.prec, truth):.0e}"


def timm() -> str:
    import timm
    from timm.optim import create_optimizer_v2

    model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    settings = {"opt": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    found = br.explain(settings, model, num_data=50_000)
    theirs = create_optimizer_v2(model, **settings)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for group in theirs.param_groups if group["weight_decay"] for p in group["params"]}
    assert {name for group in found.groups if group.weight_decay for name in group.parameters} == decayed
    prior = br.ModelPrior(model, br.Gaussian(found.groups[0].std))
    optimizer = create_optimizer_v2(prior.param_groups(), opt="sgd", lr=0.1, momentum=0.9, weight_decay=0.0)
    handle = br.attach(optimizer, prior, num_data=50_000)
    decays = sorted({float(group["weight_decay"]) for group in optimizer.param_groups})
    handle.remove()
    return f"{len(decayed)} tensors decayed by timm, as explain says; attached, its groups have weight_decay {decays}"


def keras() -> str:
    import keras

    found = br.explain(keras.regularizers.L2(1e-4), num_data=50_000)
    w = torch.randn(5, 3, requires_grad=True)
    keras.regularizers.L2(1e-4)(w).backward()
    pull = torch.zeros_like(w)
    br.Gaussian(found.groups[0].std).add_grad_([pull], [w.detach()], 1 / 50_000)
    variable = keras.Variable([1.0, -2.0])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01)
    optimizer.build([variable])
    optimizer.apply([keras.ops.zeros(2)], [variable])
    shrunk = float(keras.ops.convert_to_numpy(variable)[0])
    std = found.groups[0].std
    return f"std {std:.4g}, its gradient differs by {gap(pull, w.grad):.0e}; SGD's weight_decay shrinks by {shrunk:.4f}"


def transformers() -> str:
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    rows = [{"input_ids": torch.randint(0, 30, (6,)), "labels": int(i % 2)} for i in range(8)]
    ends = []
    for by_hand in (True, False):
        net = copy.deepcopy(model)
        prior = br.ModelPrior(net, br.Gaussian.centered_at(model, scale=0.05))
        optimizer = torch.optim.AdamW(prior.param_groups(), lr=1e-3, weight_decay=0.0)
        br.attach(optimizer, prior, num_data=len(rows))
        if by_hand:
            batch = {key: torch.stack([torch.as_tensor(row[key]) for row in rows]) for key in ("input_ids", "labels")}
            net.train()
            for _ in range(5):
                optimizer.zero_grad()
                net(**batch).loss.backward()
                optimizer.step()
        else:
            constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
            with tempfile.TemporaryDirectory() as folder:
                arguments = TrainingArguments(
                    folder, num_train_epochs=5, max_grad_norm=0.0, report_to="none", save_strategy="no", use_cpu=True,
                    disable_tqdm=True, logging_strategy="no", per_device_train_batch_size=8,
                )  # fmt: skip
                Trainer(net, arguments, train_dataset=rows, optimizers=(optimizer, constant)).train()
        ends.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    moved = gap(ends[0], torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    return f"Trainer's weights differ from a loop's by {gap(*ends):.0e}; five steps moved them by {moved:.0e}"


SECTIONS: dict[str, tuple[tuple[str, ...], Callable[[], str]]] = {
    "laplace-torch": (("laplace", "curvlinops"), laplace_torch),
    "posteriors": (("posteriors",), posteriors),
    "timm": (("timm", "torchvision"), timm),
    "Keras": (("keras",), keras),
    "transformers": (("transformers",), transformers),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(SECTIONS)}")
    chosen = parser.parse_args().only or list(SECTIONS)
    for name in chosen:
        needed, run = SECTIONS[name]
        missing = [module for module in needed if importlib.util.find_spec(module) is None]
        print(f"{name}: {run() if not missing else 'not run, without ' + ', '.join(missing)}")


if __name__ == "__main__":
    main()

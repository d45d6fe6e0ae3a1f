"""What source tasks say about each weight: Fisher information and SWAG statistics, gathered once and kept."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import bayesreg as br

#: The learned priors: SWAG's low-rank Gaussian; the Fisher information as a diagonal, and whole.
SWAG, FISHER, WHOLE = "learned prior, SWAG", "learned prior, Fisher diagonal", "learned prior, Fisher whole"

#: Precision of the prior that the sources were trained under, as far as it is known: N(0, 1).
SOURCE_PRECISION = 1.0
#: Floor of SWAG's variances, in squared units of the weights.
EPSILON = 1e-7
#: Examples for the Fisher information; snapshots and training of SWAG.
EXAMPLES, SNAPSHOTS, RANK, EPOCHS, BATCH, RATE = 7500, 40, 20, 10, 64, 0.01

METHODS = (SWAG, FISHER, WHOLE)
SETTINGS = {
    "precision": SOURCE_PRECISION,
    "epsilon": EPSILON,
    "examples": EXAMPLES,
    "snapshots": SNAPSHOTS,
    "rank": RANK,
    "epochs": EPOCHS,
    "batch": BATCH,
    "rate": RATE,
}

Statistics = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]
Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Learned:
    """What a source task says about the weights of the pretrained network.

    Attributes:
        fisher: The Fisher information of an example, at the reference.
        swag: Mean, variance and deviations along SGD that goes on from the reference, on the same examples; None for
            convex problems.
    """

    fisher: br.transfer.Fisher
    swag: Statistics | None


def learn(
    name: str, network: Callable[[], nn.Module], source: Callable[[], Data], *, convex: bool = False
) -> Callable[[], Learned]:
    """Return a function that gathers the statistics, or reads what was gathered before.

    Args:
        name: Name of the file.
        network: Makes the pretrained network, head included.
        source: Makes the source examples.
        convex: Whether it is logistic regression: the Fisher information is then kept whole.
    """

    @functools.cache
    def gathered() -> Learned:
        folder = Path(os.environ["BAYESREG_TRANSFER_CACHE"])
        paths = [folder / f"learned-{name}-{what}.safetensors" for what in ("fisher", "swag")]
        model = network()
        if not paths[0].is_file():
            _save(paths[0], _fisher(model, source(), convex))
        fisher = _read_fisher(paths[0])
        if convex:
            return Learned(fisher, None)
        if not paths[1].is_file():
            mean, variance, deviations = _swag(model, source())
            parts = {"mean": mean, "variance": variance, "deviations": deviations}
            _save(paths[1], ({f"{part}:{key}": t for part, held in parts.items() for key, t in held.items()}, {}))
        held, _ = _read(paths[1])
        statistics = [
            {key.removeprefix(f"{part}:"): t for key, t in held.items() if key.startswith(f"{part}:")}
            for part in ("mean", "variance", "deviations")
        ]
        return Learned(fisher, (statistics[0], statistics[1], statistics[2]))

    return gathered


def _fisher(model: nn.Module, data: Data, convex: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    likelihood = br.likelihoods.Bernoulli() if convex else br.likelihoods.Categorical()
    structure = "block" if convex else "diagonal"
    x, y = data
    found = br.transfer.fisher_information(
        model,
        (x[:EXAMPLES], y[:EXAMPLES]),
        likelihood,
        structure=structure,  # type: ignore[arg-type]
    )
    tensors = {f"values:{name}": value for name, value in found.values.items()}
    tensors |= {f"centre:{name}": value for name, value in found.centre.items()}
    return tensors, {"num_data": str(found.num_data), "structure": found.structure}


def _read_fisher(path: Path) -> br.transfer.Fisher:
    tensors, notes = _read(path)
    values, centre = (
        {key.removeprefix(f"{part}:"): t for key, t in tensors.items() if key.startswith(f"{part}:")}
        for part in ("values", "centre")
    )
    return br.transfer.Fisher(
        values=values,
        centre=centre,
        num_data=int(notes["num_data"]),
        structure=notes["structure"],  # type: ignore[arg-type]
        labels="expected",
    )


def _swag(model: nn.Module, data: Data) -> Statistics:
    x, y = data
    torch.manual_seed(0)
    swag = br.transfer.SWAG(model, max_rank=RANK)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    steps = EPOCHS * (len(x) // BATCH)
    every = steps // SNAPSHOTS
    order = torch.empty(0, dtype=torch.long)
    for step in range(1, steps + 1):
        if len(order) < BATCH:
            order = torch.randperm(len(x))
        batch, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        if step % every == 0:
            swag.collect()
    return swag.statistics()


def _save(path: Path, content: tuple[dict[str, Tensor], dict[str, str]]) -> None:
    from safetensors.torch import save_file

    tensors, notes = content
    temporary = path.with_suffix(f".{os.getpid()}")
    save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, {"notes": json.dumps(notes)})
    temporary.replace(path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118 (not a dict)

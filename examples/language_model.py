"""A language model under a prior: tied embeddings, batches as mappings, masked labels, accumulation, bfloat16, a kill.

    python examples/language_model.py                     # 120 steps
    python examples/language_model.py --folder runs/lm    # stop it with Ctrl-C, run it again: it goes on

A transformer of six layers learns the bytes of Python's own standard library, line by line: each line is a sequence,
what is beyond its end is masked. n is the number of unmasked bytes of the training lines, so that the prior counts once
against them, and exp(mean NLL) is the perplexity per byte.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import bayesreg as br

LENGTH, WIDTH, LAYERS, HEADS, BYTES = 64, 64, 6, 4, 128


class Lines(Dataset[dict[str, Tensor]]):
    """Lines of text as bytes: what comes before, and what comes next.

    Args:
        lines: The text.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        codes = [min(code, BYTES - 1) for code in f"\n{self.lines[index]}\n".encode()][: LENGTH + 1]
        here = torch.tensor(codes[:-1] + [0] * (LENGTH + 1 - len(codes)))
        after = torch.tensor(codes[1:] + [-100] * (LENGTH + 1 - len(codes)))
        return {"input_ids": here, "labels": after}


def text() -> tuple[list[str], list[str]]:
    """Return lines to train on, and lines of other modules."""
    library = Path(argparse.__file__).parent

    def lines(*names: str) -> list[str]:
        read = "\n".join((library / f"{name}.py").read_text(encoding="utf-8") for name in names)
        return [line for line in read.splitlines() if line.strip()]

    return lines("argparse", "ast", "calendar", "dataclasses", "inspect", "tarfile"), lines("bisect", "cmd", "shlex")


class Layer(nn.Module):
    """Attention to what came before, and a network on each position."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.attention = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        parts = self.attention(self.norms[0](x)).reshape(batch, time, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, WIDTH))
        return x + self.mlp(self.norms[1](x))


class LanguageModel(nn.Module):
    """Embeddings that are also the output layer, and the layers between."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, WIDTH)
        self.place = nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, BYTES, bias=False)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.05)
        nn.init.normal_(self.place.weight, std=0.05)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.embedding(input_ids) + self.place.weight[: input_ids.shape[1]]
        return {"logits": self.head(self.norm(self.layers(x)))}


def train(steps: int, folder: Path | None = None, progress: bool | None = None) -> tuple[br.MAPTrainer, br.FitResult]:
    """Train, or go on in the folder.

    Args:
        steps: Optimizer steps in all.
        folder: Where the state and the log are kept.
        progress: Whether to show a bar.

    Returns:
        The trainer and the outcome.
    """
    torch.manual_seed(0)
    model = LanguageModel()
    prior = br.ModelPrior(
        model,
        {
            br.biases | br.norms: br.Flat(),
            br.embeddings: br.Gaussian(scale=0.3),  # the head too: it is the same tensor, and counted once
            "*": br.FanInGaussian(gain=2.0),
        },
    )
    kept: dict[str, Any] = {}
    if folder is not None:
        kept = {"checkpoint": folder, "checkpoint_every": 25, "callbacks": br.callbacks.JSONLines(folder / "log.jsonl")}
    trainer = br.MAPTrainer(
        model, prior, br.likelihoods.Tokens(), optimizer=partial(torch.optim.Adam, lr=3e-3), scheduler="cosine",
        warmup=0.1, max_steps=steps, evaluate_every=max(1, steps // 6), batch_size=16, accumulate=2, clip_norm=1.0,
        mixed_precision="bf16", measure=False, progress=progress, **kept,
    )  # fmt: skip
    ours, others = text()
    return trainer, trainer.fit(Lines(ours), Lines(others), resume=folder is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--folder", type=Path, help="Keep the run there, and go on from it.")
    arguments = parser.parse_args()
    trainer, result = train(arguments.steps, arguments.folder)
    print(trainer.prior.describe(result.loss_scale))
    for record in result.history:
        print(f"step {record['step']:5d}: perplexity per byte {math.exp(record['val_nll']):.2f}, "
              f"right {record['val_token_accuracy']:.3f}, log prior {record['log_prior']:.4g} nats")  # fmt: skip
    print(f"n = {result.num_data:,} unmasked bytes, s = {result.loss_scale.value:.3g}")


if __name__ == "__main__":
    main()

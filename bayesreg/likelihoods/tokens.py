"""Token sequences, as language models give them."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from bayesreg._support import checks
from bayesreg._support.calls import answering
from bayesreg.errors import DataError
from bayesreg.likelihoods.base import Likelihood
from bayesreg.likelihoods.categorical import class_terms

__all__ = ["Tokens"]


@final
class Tokens(Likelihood):
    """Tokens from logits, the vocabulary last: −Σ_t log softmax(output[t])[target[t]] over unmasked tokens t.

    Outputs are (batch, time, vocabulary), targets (batch, time). n is the number of unmasked tokens of the training
    set, and means are per token, so that exp(mean NLL) is the perplexity.

    Args:
        ignore_index: Targets of this value are masked: they count neither in the NLL nor in n. Default −100.
        shift: Whether the target of a position is the token after it, as the causal models of Hugging Face mean
            their labels: output[:, :-1] is then compared with target[:, 1:]. Default False.

    Example:
        >>> likelihood = Tokens()
        >>> target = torch.tensor([[2, 0, -100]])
        >>> likelihood.nll(torch.zeros(1, 3, 4), target)  # 2 · log 4
        tensor([2.7726])
        >>> likelihood.count(target)
        tensor([2.])
    """

    target_kind = "integer"
    metric_name = "token_accuracy"
    counts_within = True
    unit = "token"

    @answering
    def __init__(self, ignore_index: int = -100, *, shift: bool = False) -> None:
        super().__init__()
        self.ignore_index = checks.integer("ignore_index", ignore_index)
        self.shift = checks.flag("shift", shift)

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        logits, tokens = self._aligned(output, target)
        flat = class_terms("Tokens", logits.flatten(0, 1), tokens.flatten(), self.ignore_index)
        return flat.reshape(tokens.shape).sum(1)

    def count(self, target: Tensor) -> Tensor:
        """Return the number of unmasked tokens of each sequence; see `Likelihood.count`."""
        if target.ndim != 2:
            raise DataError(f"Tokens: expected targets (batch, time), got shape {tuple(target.shape)}.")
        tokens = target[:, 1:] if self.shift else target
        return (tokens != self.ignore_index).sum(1).to(torch.get_default_dtype())

    def settings(self) -> dict[str, Any]:
        """See `Likelihood.settings`."""
        return {"ignore_index": self.ignore_index, "shift": self.shift}

    def predictive(self, output: Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=output)

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Return how many unmasked tokens of each sequence have the largest logit."""
        logits, tokens = self._aligned(output, target)
        valid = tokens != self.ignore_index
        return ((logits.argmax(-1) == tokens) & valid).sum(1).to(output.dtype)

    def _aligned(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if output.ndim != 3 or target.shape != output.shape[:2]:
            raise DataError(
                f"Tokens: expected output (batch, time, vocabulary) and target (batch, time), got "
                f"{tuple(output.shape)} and {tuple(target.shape)}."
            )
        if target.is_floating_point():
            raise DataError(f"Tokens: expected integer tokens as targets, got dtype {target.dtype}.")
        return (output[:, :-1], target[:, 1:]) if self.shift else (output, target)

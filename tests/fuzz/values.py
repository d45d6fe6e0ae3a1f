"""Values that few arguments take."""

from __future__ import annotations

import decimal
import fractions
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import bayesreg as br

H = br.hyperpriors
L = br.likelihoods


class Odd:
    """An object of no use."""

    def __repr__(self) -> str:
        return "Odd()"


def odd_values() -> list[Any]:
    """Return values that few arguments take; made anew, as a call may change them."""
    return [
        None,
        True,
        0,
        -1,
        3,
        10**400,
        2.5,
        -1.0,
        0.0,
        1e-200,
        1e308,
        math.nan,
        math.inf,
        -math.inf,
        1j,
        "",
        "x",
        "nope.*",
        b"x",
        [],
        [1, 2],
        (),
        ("a", 2),
        {},
        {"x": 1},
        {1, 2},
        Odd(),
        Odd,
        lambda: None,
        lambda x: x,
        decimal.Decimal("0.1"),
        fractions.Fraction(1, 3),
        np.float32(0.5),
        np.int64(2),
        np.zeros(2),
        np.zeros((0, 3)),
        np.array(["a"]),
        np.array([None]),
        torch.tensor(0.5),
        torch.tensor(-1.0),
        torch.tensor(math.nan),
        torch.tensor(2),
        torch.tensor(True),
        torch.tensor(1j),
        torch.zeros(0),
        torch.ones(2, 2),
        torch.ones(7, 5, 3),
        torch.tensor([math.inf]),
        torch.ones(3, requires_grad=True),
        torch.ones(2, device="meta"),
        torch.float32,
        torch.Generator(),
        nn.Linear(2, 2),
        nn.Linear,
        nn.Parameter(torch.ones(2)),
        torch.optim.SGD,
        "adamw",
        br.Gaussian(1.0),
        br.Gaussian,
        br.Flat(),
        L.Categorical(),
        L.Categorical,
        br.biases,
        Path("no.pt"),
        br.LossScale.mean(10),
        range(3),
        iter([1]),
        H.HalfCauchy(1.0),
        object,
    ]

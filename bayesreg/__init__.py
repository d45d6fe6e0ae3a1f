"""Bayesian priors for PyTorch: what `weight_decay` means, and every prior it cannot say.

Names are loaded on first use, so that `import bayesreg` costs little more than `import torch`; `__init__.pyi` has them.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from bayesreg._version import __version__

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULE_OF = {name: module for module, name in re.findall(r"^from ([\w.]+) import \w+ as (\w+)$", _STUB, re.MULTILINE)}

# What people call priors, and what they are here.
_GAUSSIAN = "Gaussian(scale), or br.Gaussian.from_weight_decay(weight_decay, num_data)"
_LAPLACE = "Laplace(scale), or br.Laplace.from_l1(l1_coefficient, num_data)"
_COMMON = {
    **dict.fromkeys(("l2", "ridge", "normal", "weightdecay", "weight_decay"), _GAUSSIAN),
    **dict.fromkeys(("l1", "lasso"), _LAPLACE),
}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        from bayesreg.errors import nearest

        here = _COMMON.get(name.lower())
        known = f"; that prior is br.{here}" if here else nearest(name, __all__)
        raise AttributeError(f"module 'bayesreg' has no attribute {name!r}{known}")
    module = _MODULE_OF[name]
    # Out of the package itself come its modules, out of a module what it defines.
    whole = module == "bayesreg"
    value = importlib.import_module(f"bayesreg.{name}") if whole else getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""What the older versions of torch that bayesreg supports do not have; tests of it are skipped there, by name."""

from __future__ import annotations

import inspect

import pytest
import torch

__all__ = ["ADAMW_HAS_FLAG", "ADAM_HAS_FLAG", "HAS_MUON", "adam_flag", "adamw_flag", "muon"]

HAS_MUON = hasattr(torch.optim, "Muon")
#: Before it, the state of an AdamW could not be told from that of an Adam.
ADAM_HAS_FLAG = "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters
ADAMW_HAS_FLAG = ADAM_HAS_FLAG and issubclass(torch.optim.AdamW, torch.optim.Adam)

muon = pytest.mark.skipif(not HAS_MUON, reason="this torch has no Muon")
adam_flag = pytest.mark.skipif(not ADAM_HAS_FLAG, reason="Adam of this torch has no decoupled_weight_decay")
adamw_flag = pytest.mark.skipif(not ADAMW_HAS_FLAG, reason="AdamW of this torch has no decoupled_weight_decay")

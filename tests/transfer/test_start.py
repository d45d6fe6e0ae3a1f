"""Starting from a reference: all of it or nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bayesreg as br


def test_a_model_that_cannot_be_written_is_left_alone():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.zeros(3))
            with torch.inference_mode():
                self.register_buffer("b", torch.zeros(3))

    model = Two()
    with pytest.raises(br.ReferenceMismatchError, match=r"b of the model was made under torch\.inference_mode"):
        br.transfer.load_into(model, {"a": torch.ones(3), "b": torch.ones(3)})
    assert model.a.eq(0.0).all()
    wide = nn.Linear(3, 1, bias=False)
    wide.weight = nn.Parameter(torch.zeros(1, 1).expand(1, 3))
    with pytest.raises(br.ReferenceMismatchError, match="weight of the model is an expanded tensor"):
        br.transfer.load_into(wide, {"weight": torch.ones(1, 3)})

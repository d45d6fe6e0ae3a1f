"""States to JSON and tensors, and back."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import bayesreg as br
from bayesreg.trainer.checkpoint import pack, unpack


def there_and_back(tree):
    packed, tensors = pack(tree)
    return unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**70), 0.1, 1e-320, math.pi, "text \u2028 \U0001f600", [], {}, (), [1, [2, (3, {"a": 4})]],
        {1: "by number", "1": "by word", (1, 2): "by a pair", None: "by none"}, {"kind": "tensor", "value": "w"},
        math.inf, -math.inf, Counter({3: 1, 20: 2}), OrderedDict(b=1, a=2), {True: 1, "x": 2.5},
    ],
)  # fmt: skip
def test_values_come_back_as_they_were(value):
    again = there_and_back({"it": value})["it"]
    assert again == value
    assert type(again) is type(value)
    if isinstance(value, dict):
        assert [type(key) for key in again] == [type(key) for key in value]
        assert list(again) == list(value)


def test_nan_comes_back():
    assert math.isnan(there_and_back([math.nan])[0])


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_tensors_come_back_as_they_were(dtype, shape):
    tensor = (torch.rand(shape) * 5).to(dtype)
    again = there_and_back([tensor])[0]
    assert torch.equal(again, tensor)
    assert again.dtype == dtype
    assert again.shape == tensor.shape


def test_strided_and_shared_tensors_come_back_as_values():
    whole = torch.arange(12.0).reshape(3, 4)
    tree = {"whole": whole, "turned": whole.T, "row": whole[1], "again": whole}
    packed, tensors = pack(tree)
    again = unpack(packed, tensors)
    assert all(torch.equal(again[name], value) for name, value in tree.items())
    # The same memory is kept once.
    assert len(tensors) == 3


def test_what_is_kept_is_of_that_moment():
    weights = torch.zeros(3)
    packed, tensors = pack({"w": weights})
    weights.add_(1.0)
    assert torch.equal(unpack(packed, tensors)["w"], torch.zeros(3))


def test_numbers_of_numpy_become_pythons():
    assert there_and_back([np.float64(0.1), np.int32(4), np.bool_(True)]) == [0.1, 4, True]


def test_versions_of_modules_are_kept():
    state = nn.Sequential(nn.BatchNorm1d(2)).state_dict()
    assert there_and_back(state)._metadata == state._metadata


@pytest.mark.parametrize("value", [lambda: 0, object(), {1, 2}, partial(int), torch.float32, b"x", range(3), 1j])
def test_what_only_a_pickle_could_hold_is_refused_by_name(value):
    with pytest.raises(br.CheckpointError, match=f"got {type(value).__name__} as state/inner/1"):
        pack({"inner": [0, value]})


def test_sparse_tensors_are_refused():
    with pytest.raises(br.CheckpointError, match=r"state/w is a torch\.sparse_coo tensor"):
        pack({"w": torch.eye(2).to_sparse()})


@pytest.mark.parametrize("packed", [{"kind": "pickle", "value": "x"}, {"kind": "tensor", "value": "gone"}, {}])
def test_what_pack_did_not_make_is_refused(packed):
    with pytest.raises(br.CheckpointError, match="damaged, expected a state"):
        unpack(packed, {})

"""Parameters in half precision, complex and integer ones, flat ones of FSDP1."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import bayesreg as br


@pytest.mark.filterwarnings("ignore::bayesreg.OvershootWarning")
@pytest.mark.parametrize("after_attach", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_at_their_centre_feel_the_data_only(dtype, after_attach):
    """λθ and λ·loc, added apart, drown the data's gradient in their rounding."""
    torch.manual_seed(0)
    model = nn.Linear(64, 8, bias=False)
    with torch.no_grad():
        model.weight.copy_(model.weight.to(dtype))
    if not after_attach:
        model.to(dtype)
    prior = br.ModelPrior(model, {"*": br.Gaussian(0.01, loc=model.weight.detach().float())})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    br.attach(optimizer, prior, num_data=1000)
    if after_attach:
        model.to(dtype)
    before = model.weight.detach().clone()
    model.weight.grad = torch.full_like(model.weight, 2.0**-6)
    optimizer.step()
    assert torch.equal(model.weight, before - torch.full_like(before, 2.0**-6))


@pytest.mark.filterwarnings("ignore:Complex modules")
def test_complex_weights_are_refused():
    model = nn.Linear(2, 2)
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    model.to(torch.complex64)
    with pytest.raises(br.UnsupportedError, match="complex weights have no prior here"):
        br.attach(torch.optim.SGD(model.parameters()), prior, num_data=10)


def test_integer_parameters_in_the_optimizer_do_no_harm():
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
            self.layer = nn.Linear(4, 1)

    model = Quantised()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    br.explain(optimizer, model, num_data=10)
    prior = br.ModelPrior(model, {"layer.*": br.Gaussian(1.0)})
    br.attach(torch.optim.SGD(model.parameters(), lr=0.1), prior, num_data=10)


FSDP1 = """
import os, socket, torch, torch.distributed as dist, bayesreg as br
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1")
dist.init_process_group("gloo")
model = FullyShardedDataParallel(nn.Linear(4, 3), use_orig_params=True, device_id=torch.device("cpu"))
prior = br.ModelPrior(model, br.Gaussian(1.0))
try:
    br.attach(torch.optim.SGD(model.parameters(), lr=0.1), prior, num_data=10)
except br.UnsupportedError as error:
    print(error)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_the_original_parameters_of_fsdp1_are_refused():
    done = subprocess.run([sys.executable, "-c", FSDP1], capture_output=True, text=True, check=True)
    assert "wrapped by FSDP1" in done.stdout


def test_flat_parameters_of_fsdp1_are_refused():
    class FlatParameter(nn.Parameter):
        pass

    model = nn.Linear(2, 2)
    prior = br.ModelPrior(model, br.Gaussian(1.0))
    optimizer = torch.optim.SGD([*model.parameters(), FlatParameter(torch.zeros(3))])
    with pytest.raises(br.UnsupportedError, match=r"wrapped by FSDP1.*fully_shard"):
        br.attach(optimizer, prior, num_data=10)

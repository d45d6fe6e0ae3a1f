"""One training for each prior and clip in a framework, in as many processes as torchrun started; writes the weights."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch

import bayesreg as br
from tests.interop.common import BATCH, PRIORS, RATE, STD, N, Net, data

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
LIMITS = (None, 0.1)


def own_rows():
    """This process's share of each batch; the batches of all together are those of one process."""
    X, y = data()
    return [torch.cat([v[i : i + BATCH][RANK::WORLD] for i in range(0, N, BATCH)]) for v in (X, y)]


def shared_folder(rules, limit):
    """Half of a run goes here, and the rest begins from it, with a model of other weights."""
    return Path(os.environ["SHARED_FOLDER"]) / f"{limit}{rules if isinstance(rules, str) else len(str(rules))}"


def in_lightning(rules, limit, sharded):
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard
    from torch.utils.data import DataLoader, TensorDataset

    from tests.interop.test_lightning import Module, trainer

    class Sharded(Module):
        def configure_model(self):
            if WORLD > 1:
                mesh = self.device_mesh["data_parallel"]
                for part in (self.net[0], self.net[2], self.net):
                    fully_shard(part, mesh=mesh)

    def run(epochs, module, folder, **fit):
        made = br.interop.lightning.PriorCallback(rules, num_data=N)
        saving = ModelCheckpoint(dirpath=folder, save_last=True, save_top_k=0)
        strategy = ModelParallelStrategy(WORLD, 1) if sharded else "ddp"
        more = {} if WORLD == 1 else {"strategy": strategy, "devices": WORLD, "use_distributed_sampler": False}
        once = trainer(made, saving, gradient_clip_val=limit, max_epochs=epochs, enable_checkpointing=True, **more)
        once.fit(module, DataLoader(TensorDataset(*own_rows()), batch_size=BATCH // WORLD), **fit)
        return module

    folder = shared_folder(rules, limit)
    make = Sharded if sharded else Module
    run(2, make(), folder)
    return run(4, make(seed=7), folder, ckpt_path=folder / "last.ckpt")


def in_transformers(rules, limit, sharded):
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    from tests.interop import test_transformers as own

    more = {"max_grad_norm": limit or 0.0, "per_device_train_batch_size": BATCH // WORLD}
    make = own.arguments
    if sharded:
        # A whole state dict of SGD, which has no state, is one that torch cannot load.
        shards = {"transformer_layer_cls_to_wrap": ["Linear"], "state_dict_type": "SHARDED_STATE_DICT"}
        more |= {"fsdp": "full_shard", "fsdp_config": {"version": 2, **shards}}

    def arguments(*args, **keywords):
        made = make(*args, **keywords)
        if sharded:
            # Accelerate offers FSDP on accelerators only; what it does to weights and optimizer is the same on the CPU.
            assert made.device.type == "cpu"
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        return made

    def run(epochs, model, folder, **train):
        own.arguments = arguments
        try:
            given = {**more, "num_train_epochs": epochs, "save_strategy": "epoch"}
            made = own.trainer(folder, rules, model=model, more=given)
        finally:
            own.arguments = make
        made.train(**train)
        assert made.is_fsdp_enabled == sharded
        return made

    folder = shared_folder(rules, limit)
    run(2, own.Model(), folder)
    made = run(4, own.Model(seed=7), folder, resume_from_checkpoint=str(folder / "checkpoint-6"))
    return made.model


def in_skorch(rules, limit, sharded):
    import skorch
    from accelerate import Accelerator
    from skorch.callbacks import GradientNormClipping
    from skorch.hf import AccelerateMixin

    class Loss:
        """No module: on the CPU, Accelerate would wrap one for its gradients, of which a criterion has none."""

        def __call__(self, given, target):
            return torch.nn.functional.cross_entropy(given, target)

    class Accelerated(AccelerateMixin, skorch.NeuralNet):
        """Over processes."""

    own = [("prior", br.interop.skorch.PriorCallback(rules))]
    net = Accelerated(
        Net, accelerator=Accelerator(cpu=True), criterion=Loss, lr=RATE, max_epochs=4,
        batch_size=BATCH // WORLD, train_split=None, iterator_train__shuffle=False, verbose=0,
        callbacks=own if limit is None else [*own, GradientNormClipping(limit)],
    )  # fmt: skip
    X, y = data()
    return net.fit(X.numpy(), y.numpy()).module_


def rules_for(kind, framework):
    if kind == "centred" and framework != "skorch":
        from tests.interop.test_lightning import Module
        from tests.interop.test_transformers import Model

        made = Module(seed=9) if framework == "lightning" else Model(seed=9)
        return {"*": br.Gaussian.centered_at(made, STD)}
    return f"pretrained({STD})" if kind == "pretrained" else PRIORS[kind]()


def main(framework, kind, output):
    warnings.simplefilter("ignore")
    train = {"lightning": in_lightning, "transformers": in_transformers, "skorch": in_skorch}[framework]
    kinds = [*PRIORS, *([] if framework == "skorch" else ["pretrained"])]
    found = {}
    for prior in kinds:
        for limit in LIMITS:
            model = train(rules_for(prior, framework), limit, kind == "sharded")
            whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
            found[f"{prior} {limit}"] = [w.tolist() for w in whole]
    Path(f"{output}.{RANK}").write_text(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(*sys.argv[1:])

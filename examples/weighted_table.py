"""A table with sample weights, from a data frame or arrays to a run folder that predicts by name.

    python examples/weighted_table.py

Breast cancer, where every third malignant row is made to count three times: both readings of weights, side by side. As
counts the weights are more data, so that the prior loses; as relative weights only their ratios matter.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

import bayesreg as br


def main() -> None:
    data = load_breast_cancer()
    X = (data.data - data.data.mean(0)) / data.data.std(0)
    weight = np.where((data.target == 0) & (np.arange(len(X)) % 3 == 0), 3.0, 1.0)
    parts = train_test_split(X, data.target, weight, test_size=0.3, random_state=0, stratify=data.target)
    train, test = tuple(parts[::2]), tuple(parts[1::2])
    for reading in ("counts", "relative"):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 1))
        trainer = br.MAPTrainer(
            network, br.Gaussian(scale=0.3), br.likelihoods.Bernoulli(), sample_weight=2, weights_are=reading,
            optimizer=partial(torch.optim.Adam, lr=1e-2), max_epochs=40,
            average=br.WeightAverage("ema", decay=0.98), progress=False,
        )  # fmt: skip
        result = trainer.fit(train, test)
        found = trainer.evaluate(test)
        print(f"{reading:9}: n = {result.num_data:g}, weight_decay {1 / (result.num_data * 0.3**2):.4f}, "
              f"weighted test NLL {found['nll']:.4f}, accuracy {found['accuracy']:.3f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        names = [str(name) for name in data.target_names]
        folder = br.save_run(Path(place) / "cancer", trainer, class_names=names, feature_names=list(data.feature_names))
        run = br.load_run(folder, network)
        print("The first test rows:", ", ".join(run.predict(test[0][:3], kind="names")))


if __name__ == "__main__":
    main()

"""The three transfer tasks: data, networks and references; they need the folder $BAYESREG_DATA."""

from __future__ import annotations

import functools
import gzip
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _transfer_learned import FISHER, SWAG, WHOLE, Learned, learn
from torch import Tensor, nn
from torch.nn import functional as F

import bayesreg as br

SIZES = (10, 20, 50, 100)


@dataclass(frozen=True)
class Pool:
    """Labelled examples to draw from, and the pretrained network that goes with them.

    Attributes:
        x: Inputs.
        y: Labels.
        reference: The pretrained weights.
        learned: Makes what the source task says about each of them.
    """

    x: Tensor
    y: Tensor
    reference: br.Reference
    learned: Callable[[], Learned]

    def draw(self, n: int, seed: int, test_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return indices of n examples, as many of each class, and of others to test on."""
        order = np.random.default_rng(seed).permutation(len(self.y))
        labels = self.y[order].long().flatten().numpy()
        classes = np.unique(labels)
        train = np.concatenate([order[labels == c][: n // len(classes)] for c in classes])
        return train, order[~np.isin(order, train)][:test_size]


@dataclass(frozen=True)
class Task:
    """A transfer task.

    Attributes:
        name: Its name.
        network: Makes a network with its random initialisation for so many classes.
        target: What is to be learned.
        rehearsal: The same made of source data only, on which the rule chooses the strength.
        new: Rule key of the layers that the reference does not have.
        convex: Whether the MAP is unique and solved for exactly.
        grids: The settings of each method: prior scales (of learned priors: what all standard deviations are
            multiplied by) and learning rates.
        test_size: Test examples per seed.
    """

    name: str
    network: Callable[[int], nn.Module]
    target: Callable[[], Pool]
    rehearsal: Callable[[], Pool]
    grids: dict[str, list[tuple[float | None, float | None]]]
    new: str | None = None
    convex: bool = False
    test_size: int = 500


def folder() -> Path:
    found = os.environ.get("BAYESREG_DATA")
    if not found:
        raise SystemExit("set BAYESREG_DATA to the folder with the data sets (mnist_t10k, sentiment_sentences, ...)")
    return Path(found)


def cross(scales: tuple[float, ...] | tuple[None], rates: tuple[float, ...]) -> list[tuple[float | None, float | None]]:
    return [(scale, rate) for scale in scales for rate in rates]


def idx(path: Path) -> Tensor:
    """Read an IDX file of bytes: images or labels."""
    raw = gzip.decompress(path.read_bytes())
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", count=dimensions, offset=4)
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())


# -- MNIST CNN -> digits of 8x8 pixels -------------------------------------------------------------------


class MnistCNN(nn.Module):
    """The network of the published weights."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def _as_mnist(images: Tensor) -> Tensor:
    """Enlarge images of 8x8 pixels in [0, 1] to 16x16, put them amid 28x28 and normalise as the network expects."""
    large = F.interpolate(images[:, None], size=(16, 16), mode="bilinear", align_corners=False)
    return (F.pad(large, (6, 6, 6, 6)) - 0.1307) / 0.3081


@functools.cache
def _mnist_reference() -> br.Reference:
    return br.load_reference(folder() / "weights_mnist_botorch" / "mnist_cnn.pt")


def _mnist_images(part: slice) -> tuple[Tensor, Tensor]:
    images = idx(folder() / "mnist_t10k" / "t10k-images-idx3-ubyte.gz")[part].float() / 255
    return images, idx(folder() / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz")[part].long()


def _mnist_source() -> tuple[Tensor, Tensor]:
    """MNIST *test* images, those that no rehearsal validates on; the network's own training images are not here."""
    images, labels = _mnist_images(slice(2500, None))
    return ((images - 0.1307) / 0.3081)[:, None], labels


def _pretrained(make: Callable[[], nn.Module], reference: Callable[[], br.Reference]) -> Callable[[], nn.Module]:
    def network() -> nn.Module:
        model = make()
        br.transfer.load_into(model, reference())
        return model

    return network


_mnist_learned = learn("mnist", _pretrained(MnistCNN, _mnist_reference), _mnist_source)


@functools.cache
def digits_target() -> Pool:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.as_tensor(data.images, dtype=torch.float32) / 16
    return Pool(_as_mnist(images), torch.as_tensor(data.target), _mnist_reference(), _mnist_learned)


@functools.cache
def digits_rehearsal() -> Pool:
    """MNIST test images brought down to the target's 8x8 pixels and through the same pipeline."""
    images, labels = _mnist_images(slice(0, 2500))
    small = F.interpolate(images[:, None, 4:24, 4:24], size=(8, 8), mode="area")[:, 0]
    return Pool(_as_mnist(small), labels, _mnist_reference(), _mnist_learned)


# -- IMDb + Amazon -> Yelp sentences -----------------------------------------------------------------------


@functools.cache
def _sentences() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return binary bags of the words in three or more sentences, and labels, by domain."""
    texts, labels = {}, {}
    for domain in ("imdb", "amazon_cells", "yelp"):
        lines = (folder() / "sentiment_sentences" / f"{domain}_labelled.txt").read_text("utf-8").strip().split("\n")
        pairs = [line.rsplit("\t", 1) for line in lines]
        texts[domain] = [set(re.findall(r"[a-z']+", text.lower())) for text, _ in pairs]
        labels[domain] = torch.tensor([[float(label)] for _, label in pairs], dtype=torch.float64)
    counts: dict[str, int] = {}
    for bag in (bag for bags in texts.values() for bag in bags):
        for word in bag:
            counts[word] = counts.get(word, 0) + 1
    column = {word: i for i, word in enumerate(sorted(word for word, count in counts.items() if count >= 3))}
    features = {}
    for domain, bags in texts.items():
        features[domain] = torch.zeros(len(bags), len(column), dtype=torch.float64)
        for row, bag in enumerate(bags):
            features[domain][row, [column[word] for word in bag if word in column]] = 1.0
    return features, labels


def linear(_classes: int = 2) -> nn.Module:
    features, _ = _sentences()
    return nn.Linear(features["yelp"].shape[1], 1).double()


@functools.cache
def _sentences_reference(*domains: str) -> br.Reference:
    features, labels = _sentences()
    model = linear()
    x, y = torch.cat([features[d] for d in domains]), torch.cat([labels[d] for d in domains])
    prior = br.ModelPrior(model, {"*": br.Gaussian(1.0)})
    br.MAPTrainer(model, prior, br.likelihoods.Bernoulli(), optimizer="lbfgs", progress=False).fit((x, y))
    return br.load_reference(model)


def _sentences_learned(*domains: str) -> Callable[[], Learned]:
    def source() -> tuple[Tensor, Tensor]:
        features, labels = _sentences()
        return torch.cat([features[d] for d in domains]), torch.cat([labels[d] for d in domains])

    network = _pretrained(linear, functools.partial(_sentences_reference, *domains))
    return learn(f"sentences-{'-'.join(domains)}", network, source, convex=True)


@functools.cache
def sentences_target() -> Pool:
    features, labels = _sentences()
    sources = ("imdb", "amazon_cells")
    return Pool(features["yelp"], labels["yelp"], _sentences_reference(*sources), _sentences_learned(*sources))


@functools.cache
def sentences_rehearsal() -> Pool:
    features, labels = _sentences()
    reference, learned = _sentences_reference("imdb"), _sentences_learned("imdb")
    return Pool(features["amazon_cells"], labels["amazon_cells"], reference, learned)


# -- Fashion-MNIST: five classes -> the other five; no gain expected ---------------------------------------------

SOURCE, TARGET = (0, 2, 3, 5, 7), (1, 4, 6, 8, 9)


class SmallCNN(nn.Module):
    """Two convolutions, a hidden layer and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 5), nn.Conv2d(8, 16, 5)
        self.hidden, self.head = nn.Linear(256, 64), nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


@functools.cache
def _fashion(classes: tuple[int, ...], part: str) -> tuple[Tensor, Tensor]:
    where = folder() / "fashion_mnist"
    images = idx(where / f"{part}-images-idx3-ubyte.gz")
    labels = idx(where / f"{part}-labels-idx1-ubyte.gz").long()
    chosen = torch.isin(labels, torch.tensor(classes))
    numbers = torch.tensor([classes.index(int(label)) if label in classes else -1 for label in range(10)])
    return ((images[chosen].float() / 255 - 0.2860) / 0.3530)[:, None], numbers[labels[chosen]]


@functools.cache
def _fashion_weights(classes: tuple[int, ...]) -> Path:
    """Train on all training images of some classes, three epochs; kept in a file for the other processes."""
    from safetensors.torch import save_file

    path = Path(os.environ["BAYESREG_TRANSFER_CACHE"]) / f"fashion-{''.join(map(str, classes))}.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        x, y = _fashion(classes, "train")
        model = SmallCNN(len(classes))
        trainer = br.MAPTrainer(
            model, br.Gaussian(1.0), br.likelihoods.Categorical(), max_epochs=3, batch_size=64, progress=False
        )
        trainer.fit((x, y))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        save_file(model.state_dict(), temporary)
        temporary.replace(path)
    return path


def _fashion_pool(source: tuple[int, ...], target: tuple[int, ...]) -> Pool:
    # The head is for other classes.
    reference = br.load_reference(_fashion_weights(source), rename={"head.*": None})
    whole = _pretrained(lambda: SmallCNN(len(source)), lambda: br.load_reference(_fashion_weights(source)))
    learned = learn(f"fashion-{''.join(map(str, source))}", whole, lambda: _fashion(source, "train"))
    return Pool(*_fashion(target, "t10k"), reference, learned)


@functools.cache
def fashion_target() -> Pool:
    return _fashion_pool(SOURCE, TARGET)


@functools.cache
def fashion_rehearsal() -> Pool:
    """A network of three source classes, used on the other two."""
    return _fashion_pool(SOURCE[:3], SOURCE[3:])


WIDE = tuple(float(f"{10 ** (k / 4 - 1.5):.3g}") for k in range(12))
# Other rates, for a look at how much they matter, are given in the environment: "0.001 0.003 0.01".
RATES = tuple(float(rate) for rate in os.environ.get("BAYESREG_TRANSFER_RATES", "0.003 0.01").split())

TASKS = {
    task.name: task
    for task in (
        Task(
            "digits",
            MnistCNN,
            digits_target,
            digits_rehearsal,
            grids={
                "no prior, pretrained start": cross((None,), (0.0003, 0.001, 0.003, 0.01)),
                "standard prior, from scratch": cross((0.65, 1.4, 3.0, 6.5), (0.01, 0.03)),
                "standard prior, pretrained start": cross((0.3, 0.65, 1.4, 3.0), RATES),
                "pretrained-centred prior": cross((0.06, 0.13, 0.28, 0.6), RATES),
                FISHER: cross((0.1, 0.3, 1.0, 3.0), RATES),
                SWAG: cross((30.0, 100.0, 300.0, 1000.0), RATES),
            },
        ),
        Task(
            "sentences",
            linear,
            sentences_target,
            sentences_rehearsal,
            grids={
                "no prior, pretrained start": [(None, None)],
                "standard prior": [(scale, None) for scale in WIDE],
                "pretrained-centred prior": [(scale, None) for scale in WIDE],
                FISHER: [(scale, None) for scale in WIDE],
                # Fits of a second each: the middle of the grid, where the rehearsal has its minimum.
                WHOLE: [(scale, None) for scale in WIDE[6:10]],
            },
            convex=True,
        ),
        Task(
            "fashion",
            SmallCNN,
            fashion_target,
            fashion_rehearsal,
            grids={
                "no prior, pretrained start": cross((None,), (0.001, 0.003, 0.01, 0.03)),
                "standard prior, from scratch": cross((0.3, 0.65, 1.4, 3.0), (0.01, 0.03)),
                "standard prior, pretrained start": cross((0.3, 0.65, 1.4, 3.0), (0.003, 0.01)),
                "pretrained-centred prior": cross((0.06, 0.13, 0.28, 0.6), (0.003, 0.01)),
                FISHER: cross((0.3, 1.0, 3.0, 10.0), (0.003, 0.01)),
                SWAG: cross((30.0, 100.0, 300.0, 1000.0), (0.003, 0.01)),
            },
            new="head.*",
        ),
    )
}

"""A small transformer fine-tuned under Hugging Face's Trainer: does a prior about what it came with help on few texts?

Pretrained here on sentences about films and phones, then fine-tuned on n sentences about restaurants. By the NLL of
three folds of the n each prior gets one of five widths, and each training without a prior one of five lengths, as it is
by stopping early that people keep one near its start; the test sentences choose nothing. The head alone is a linear
model on the features of the rest, whose strength `br.choose_strength` finds.
"""

from __future__ import annotations

import logging
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from _common import write
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as hf_logging

import bayesreg as br

SOURCES, TARGET = ("imdb_labelled", "amazon_cells_labelled"), "yelp_labelled"
SIZES, SEEDS, TEST = (50, 200), range(5), 500
WIDTHS, LENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3), (15, 30, 60, 120, 240)
LENGTH, FOLDS = 40, 3
BATCH, RATE = 16, 1e-3
COLUMNS = ("input_ids", "attention_mask", "labels")

Rows = list[dict[str, Any]]


def sentences(folder: Path) -> dict[str, list[tuple[list[str], int]]]:
    """Return the words and the label of each sentence, by file."""
    found = {}
    for name in (*SOURCES, TARGET):
        lines = (folder / f"{name}.txt").read_text().strip("\n").split("\n")
        split = [line.rsplit("\t", 1) for line in lines]
        found[name] = [(re.findall(r"[a-z']+", text.lower()), int(label)) for text, label in split]
    return found


def encoded(rows: list[tuple[list[str], int]], words: Mapping[str, int]) -> Rows:
    """Return sentences as the Trainer takes them: 0 pads, 1 begins, 2 is any other word."""
    made = []
    for text, label in rows:
        tokens = [1, *(words.get(word, 2) for word in text)][:LENGTH]
        padding = LENGTH - len(tokens)
        mask = [1] * len(tokens) + [0] * padding
        made.append({"input_ids": tokens + [0] * padding, "attention_mask": mask, "labels": label})
    return made


def arguments(steps: int, seed: int, **more: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=RATE,
        per_device_eval_batch_size=500, seed=seed, report_to=[], disable_tqdm=True, save_strategy="no",
        logging_strategy="no", use_cpu=not torch.cuda.is_available(), dataloader_pin_memory=False, **more,
    )  # fmt: skip


def run(trainer: Trainer) -> None:
    """Train without a word."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def pretrained(rows: Rows, size: int) -> nn.Module:
    """Return a BERT of 2 layers and 64 units, trained on the sources for as long as a tenth of them says."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    model, best, kept = BertForSequenceClassification(config), float("inf"), {}
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    held, train = [rows[i] for i in order[: len(rows) // 10]], [rows[i] for i in order[len(rows) // 10 :]]
    for part in range(8):
        run(Trainer(model=model, args=arguments(len(train) // BATCH, part), train_dataset=train))
        nll = judged(model, held)[1]
        if nll < best:
            best, kept = nll, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return model


@torch.no_grad()
def judged(model: nn.Module, rows: Rows) -> tuple[float, float]:
    """Return accuracy and mean NLL."""
    model.eval()
    device = next(model.parameters()).device
    ids, mask, labels = (torch.tensor([row[name] for row in rows], device=device) for name in COLUMNS)
    logits = model(input_ids=ids, attention_mask=mask).logits
    accuracy = (logits.argmax(-1) == labels).double().mean()
    return float(accuracy), float(nn.functional.cross_entropy(logits.double(), labels))


def fitted(config: BertConfig, start: Mapping[str, Any], rows: Rows, way: str, strength: float, seed: int) -> nn.Module:
    """Return the model that a way of fine-tuning ends with, adapters merged; its strength is a width or a length."""
    torch.manual_seed(seed)
    model: Any = BertForSequenceClassification(config)
    model.load_state_dict(start)
    if "LoRA" in way:
        layers = ["query", "key", "value", "dense", "classifier"]
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=layers))
    given = {"weight_decay": 0.01} if "0.01" in way else {}
    steps = LENGTHS[-1] if "prior" in way else int(strength)
    args = arguments(steps, seed, label_names=["labels"], **given)
    if "prior" in way:
        words = f"{'lora' if 'LoRA' in way else 'pretrained'}({strength})"
        run(br.interop.transformers.PriorTrainer(model=model, args=args, train_dataset=rows, prior=words))
    else:
        run(Trainer(model=model, args=args, train_dataset=rows))
    return model.merge_and_unload() if "LoRA" in way else model


def head_alone(config: BertConfig, start: Mapping[str, Any], rows: Rows) -> tuple[nn.Module, float]:
    """Return the model with another last layer, about the one that it came with, and the width of its prior."""
    model = BertForSequenceClassification(config).eval()
    model.load_state_dict(start)
    ids, mask, labels = (torch.tensor([row[name] for row in rows]) for name in COLUMNS)
    with torch.no_grad():
        features = model.bert(input_ids=ids, attention_mask=mask).pooler_output.double()
    head = nn.Linear(config.hidden_size, 2).double()
    head.load_state_dict(model.classifier.state_dict())
    about = br.Gaussian.centered_at(model.classifier, 1.0)
    choice = br.choose_strength(head, about, br.likelihoods.Categorical(), (features, labels))
    model.classifier.load_state_dict(choice.model.state_dict())
    return model, float(choice.scale)


WAYS = {
    "the head alone, `br.choose_strength`": "head",
    "no prior": "weights",
    "no prior, weight_decay=0.01": "weights, 0.01",
    'prior="pretrained(std)"': "weights, prior",
    "LoRA, no prior": "LoRA",
    'LoRA, prior="lora(std)"': "LoRA, prior",
}


def chosen(config: BertConfig, start: Mapping[str, Any], rows: Rows, way: str, seed: int) -> float:
    """Return the width or the length with the smallest NLL over folds of the n sentences."""
    folds = [rows[at::FOLDS] for at in range(FOLDS)]

    def nll(strength: float) -> float:
        total = 0.0
        for at, held in enumerate(folds):
            rest = [row for other, fold in enumerate(folds) if other != at for row in fold]
            total += judged(fitted(config, start, rest, way, strength, seed), held)[1] * len(held)
        return total

    return min(WIDTHS if "prior" in way else LENGTHS, key=nll)


def distance(model: nn.Module, start: Mapping[str, Any]) -> float:
    """Return the root of the sum of squared differences of all weight matrices."""
    moved = (p.detach() - start[name] for name, p in model.named_parameters() if p.ndim > 1)
    return float(sum(float(one.double().square().sum()) for one in moved) ** 0.5)


def main() -> None:
    """Print the table."""
    hf_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)
    texts = sentences(Path(os.environ["BAYESREG_DATA"]) / "sentiment_sentences")
    counts = Counter(word for rows in texts.values() for text, _ in rows for word in set(text))
    words = {word: index for index, word in enumerate(sorted(w for w, c in counts.items() if c > 2), start=3)}
    source = encoded([row for name in SOURCES for row in texts[name]], words)
    target = encoded(texts[TARGET], words)
    began = time.perf_counter()
    model = pretrained(source, len(words) + 3)
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    print(f"pretrained in {time.perf_counter() - began:.0f} s, {sum(p.numel() for p in model.parameters()):,} weights")
    found: dict[tuple[int, str], list[tuple[float, float, float, float]]] = {}
    zero_shot = []
    for seed in SEEDS:
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed)).tolist()
        test, pool = [target[i] for i in order[:TEST]], [target[i] for i in order[TEST:]]
        zero_shot.append(judged(model, test))
        for n in SIZES:
            for name, way in WAYS.items():
                if way == "head":
                    tuned, strength = head_alone(model.config, start, pool[:n])
                else:
                    strength = chosen(model.config, start, pool[:n], way, seed)
                    tuned = fitted(model.config, start, pool[:n], way, strength, seed)
                found.setdefault((n, name), []).append((*judged(tuned, test), distance(tuned, start), strength))
                print(f"{time.perf_counter() - began:.0f} s", seed, n, name, found[n, name][-1], file=sys.stderr)
    rows: list[dict[str, object]] = [row(0, "as it came", [(*one, 0.0, 0.0) for one in zero_shot])]
    rows += [row(n, name, runs) for (n, name), runs in found.items()]
    print(f"in all {(time.perf_counter() - began) / 60:.0f} minutes")
    write(rows, __doc__ or "")


def row(n: int, name: str, runs: list[tuple[float, float, float, float]]) -> dict[str, object]:
    accuracy, nll, moved, chose = zip(*runs, strict=True)
    spread = statistics.stdev(accuracy) / len(accuracy) ** 0.5
    told = ", ".join(f"{one:.2g}" if one < 10 else f"{one:.0f}" for one in sorted(chose)) if chose[0] > 0 else ""
    return {
        "n": n, "fine-tuned": name, "accuracy": f"{statistics.mean(accuracy):.3f} ± {spread:.3f}",
        "NLL": f"{statistics.mean(nll):.3f}", "distance": f"{statistics.mean(moved):.2f}", "std or steps chosen": told,
    }  # fmt: skip


if __name__ == "__main__":
    main()

"""Command lines with words, numbers and files changed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import bayesreg as br
from bayesreg.cli import main
from tests.fuzz import files
from tests.fuzz.priors import network
from tests.fuzz.verdict import LONGEST, Verdict, judge

# -- what works ------------------------------------------------------------------------------------------------------

_CONVERT = [
    "convert 5e-4 --num-data 50000",
    "convert 0.04 --from variance --num-data 1000",
    "convert 1 --from std --loss sum",
    "convert 1 --from ridge-alpha --num-data 100 --noise-std 0.5",
    "convert 0.1 --from laplace-scale --num-data 10",
    "convert 0.05 --from lasso-alpha --num-data 10 --noise-std 2",
    "convert 1e-4 --num-data 100 --optimizer sgd",
    "convert 1e-4 --loss mse --num-data 100 --num-outputs 3 --noise-std 0.1",
    "convert 1e-4 --loss minibatch-sum --num-data 100 --batch-size 10",
    "convert 2 --from logistic-c --num-data 9",
    "convert 0.1 --optimizer adamw --from-run batch_size=64,lr=1e-3,num_data=1e6 --to-run batch_size=256,epochs=3",
    "convert 1e-4 --num-data 100 --likelihood-weight 0.5 --loss tokens",
]
_EXPLAIN = [
    "explain --optimizer sgd --lr 0.1 --weight-decay 5e-4 --num-data 50000 --dtype bfloat16 --clip-norm 1",
    "explain --optimizer adamw --lr 1e-3 --weight-decay 0.01 --num-data 1000 --momentum 0.9",
    "explain sgd.pt --num-data 1000",
    "explain adamw.pt --num-data 1000 --optimizer adamw",
    "explain whole.pt --num-data 1000",
    "explain args.json --num-data 1000",
    "explain args.yaml --num-data 1000",
    "explain --keras-l2 1e-4 --num-data 50000",
    "explain regularizer.json --num-data 20",
    "explain prior.safetensors --num-data 5",
    "explain run --num-data 5",
    "explain --optimizer adamw --lr 1e-3 --weight-decay 0.1 --num-data 1000 --batch-size 10 --epochs 3 --warmup 0.1",
    "explain --optimizer sgd --lr 0.1 --weight-decay 1e-3 --num-data 1000 --steps 500 --schedule cosine",
    "explain args.json --num-data 1000 --fail-on biases-decayed,width --github",
    "explain args.yaml --num-data 1000 --save-baseline decay.json",
    "explain nano.py --num-data 1000",
    "explain block.yaml --num-data 1000",
    "explain deep.json --num-data 1000",
    "explain titan.toml --num-data 1000",
    "explain args.json --num-data 1000 --baseline decay-kept.json --json",
]
_PRIOR = [
    "prior show prior.safetensors",
    "prior show run",
    "prior convert prior.safetensors --variance-factor 100 -o out.safetensors",
    "prior convert prior.safetensors --rename 0.*=first.* -o out.safetensors",
    "prior convert prior.safetensors --only 0.* -o out.safetensors",
    "prior fit c1.pt c2.pt c3.pt -o out.safetensors",
    "prior fit c1.pt c2.pt --rank 2 --epsilon 0.1 -o out.safetensors",
    "prior convert mean.pt --variance var.pt --deviations dev.pt --like c1.pt --convention stated -o out.safetensors",
]
_FIT = [
    "fit data.csv --output out",
    "fit data.csv --output out --prior laplace(0.5) --val-fraction 0",
    "fit data.npz --output out --task regression --noise-std 0.5",
    "fit data.csv --output out --target b",
    "fit data.csv --output out --model mlp --hidden 3 --epochs 1 --batch-size 10 --lr 0.01 --keep-last",
    "fit data.csv --output out --prior l2(weight_decay=1e-3) --seed 3",
    "fit bare.csv --no-header --output out",
    "fit iris --output out --prior gaussian(1.0) --optimizer lbfgs --starts 1",
    "fit houses.csv --target price --output out",
    "fit houses.csv --target city --drop note --output out --prior gaussian(1.0)",
    "fit houses.csv --target price --features size,city --output out --prior laplace(0.5) --val-fraction 0.3",
    "fit houses.csv --sep , --decimal . --target price --output tabled --force",
]
_RUNS = [
    "predict tabled houses.csv --keep city,note",
    "predict tabled houses.csv --output predicted.csv",
    "predict arrays data.npz",
    "report tabled --output page.html",
    "report arrays",
]
_STRENGTH = [
    "strength data.csv",
    "strength data.csv --target b --prior laplace(auto) --method split",
    "strength data.npz --task regression --noise-std 0.5 --method gcv --picture s.png",
    "strength data.csv --model mlp --hidden 3 --method folds --seed 3",
    "fit data.csv --output out --prior gaussian(auto)",
]
_OTHER = ["--version", "--help", "fit --help", "demo --help", "prior", ""]

WORKING = {
    "convert": _CONVERT,
    "explain": _EXPLAIN,
    "prior": _PRIOR,
    "fit": _FIT,
    "strength": _STRENGTH,
    "runs": _RUNS,
    "other": _OTHER,
}

# -- what does not ---------------------------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "-1",
    "0",
    "-0.0",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-400",
    "1e308",
    "1e-200",
    "9" * 60,
    "1_0",
    "0x10",
    "٣",
    "x",
    "None",
    "true",
    "[1]",
    "1,2",
    "1e",
    "--",
    "-",
    "\x1b[2J",
    "\x07",
    "é",
    "\udcff",
    "a" * 5_000,
    "..",
    "/",
    ".",
    "/dev/null",
    "/proc/self/mem",
    "no/such.csv",
    "no.safetensors",
    "data.csv",
    "prior.safetensors",
    "sgd.pt",
    "args.json",
    "gaussian(",
    "gaussian(-1)",
    "gaussian(1e-200)",
    "l2(0.1)",
    "l1(coefficient=1)",
    "flat()",
    "laplace(nan)",
    "adamw",
    "gaussian(1, center='prior.safetensors')",
    "gaussian(" + "-" * 3_000 + "1)",
    "mixture()",
    "uniform(1,0)",
    "os:kill",
    "horseshoe(0.1)",
    "group_laplace(1, group='x')",
    "student_t(0, 1)",
    "scale_mixture([1],[1])",
    "=",
    "*=",
    "=*",
    "*=.",
    "0.weight=.",
    "*=x",
    "0.weight=2.weight",
    "module:function",
    ":",
    "math:sqrt",
    "10000000000000000000000",
]
OPTIONS = [
    "--num-data",
    "--from",
    "--loss",
    "--optimizer",
    "--noise-std",
    "--num-outputs",
    "--batch-size",
    "--likelihood-weight",
    "--json",
    "--weight-decay",
    "--lr",
    "--momentum",
    "--dtype",
    "--clip-norm",
    "--keras-l1",
    "--keras-l2",
    "--target",
    "--task",
    "--model",
    "--hidden",
    "--prior",
    "--epochs",
    "--val-fraction",
    "--starts",
    "--seed",
    "--keep-last",
    "--output",
    "--rank",
    "--variance-factor",
    "--epsilon",
    "--only",
    "--rename",
    "--convention",
    "--header",
    "--features",
    "--drop",
    "--sep",
    "--force",
    "--trust",
    "--nope",
]


_NUMBERS = ("0.5", "1e-3", "5e-4", "100", "50_000", "5e4")
#: Numbers that no setting can be, or that few can.
_NO_SETTING = ("-1", "0", "-0.0", "nan", "inf", "-inf", "1e400", "1e-400", "-1e-3", "1.5")


def prepare(folder: Path) -> None:
    """Write a working file of every kind that the command lines name."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(30, 2))
    y = (X[:, 0] > 0).astype(int)
    rows = "\n".join(f"{a:.4f},{b:.4f},{c}" for (a, b), c in zip(X, y, strict=True))
    (folder / "data.csv").write_text(f"a,b,y\n{rows}\n")
    (folder / "bare.csv").write_text(rows)
    np.savez(folder / "data.npz", X=X, y=X[:, 0] + 0.1)
    for name, make in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        model = network()
        optimizer = make(model.parameters(), lr=0.1, weight_decay=0.01)
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        torch.save(optimizer.state_dict(), folder / f"{name}.pt")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "whole.pt")
    for index in (1, 2, 3):
        torch.save({n: t + 0.1 * index**2 for n, t in network().state_dict().items()}, folder / f"c{index}.pt")
    size = sum(p.numel() for p in network().parameters())
    for name, tensor in (("mean", torch.zeros(size)), ("var", torch.ones(size)), ("dev", torch.ones(3, size))):
        torch.save(tensor, folder / f"{name}.pt")
    settings = {"optim": "adamw_torch", "learning_rate": 1e-4, "weight_decay": 0.01, "max_grad_norm": 1.0}
    (folder / "args.json").write_text(json.dumps(settings))
    (folder / "nano.py").write_text("learning_rate = 1e-3\nmax_iters = 5 * 100\nweight_decay = 0.1\nmin_lr = 1e-4\n")
    (folder / "block.yaml").write_text("optimizer:\n  _target_: torch.optim.SGD\n  lr: 0.1\n  weight_decay: 1.0e-4\n")
    params = {"lr": 3e-5, "betas": [0.8, 0.999], "weight_decay": 3e-7}
    (folder / "deep.json").write_text(json.dumps({"optimizer": {"type": "Adam", "params": params}}))
    rules = '[[optimizer.param_groups]]\npattern = "norm|bias"\nweight_decay_multiplier = 0.0\n[training]\nsteps = 9\n'
    (folder / "titan.toml").write_text(f'[optimizer]\nname = "AdamW"\nlr = 1e-3\n{rules}')
    kept = {"format": "bayesreg decay", "version": 1, "findings": ["width"], "parameters": {"a": {"decay": "none"}}}
    (folder / "decay-kept.json").write_text(json.dumps(kept))
    (folder / "args.yaml").write_text("opt: sgd\nlr: 0.1\nweight_decay: 0.0005\nmomentum: 0.9\n")
    (folder / "regularizer.json").write_text(json.dumps({"class_name": "L1L2", "config": {"l1": 0.0, "l2": 1e-4}}))
    br.ModelPrior(network(), br.Gaussian.centered_at(network(), 0.1)).save(folder / "prior.safetensors")
    houses = [
        f"{60 + i % 50},{'' if i % 9 == 0 else i % 7},{'KBE'[i % 3]},n{i},{1000 + 37 * (i % 50)}" for i in range(40)
    ]
    (folder / "houses.csv").write_text("size,rooms,city,note,price\n" + "\n".join(houses) + "\n")
    call(["fit", "iris", "--output", "run"])
    call(["fit", "houses.csv", "--target", "price", "--output", "tabled"])
    call(["fit", "data.npz", "--task", "regression", "--noise-std", "0.5", "--output", "arrays"])


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Run a command line in this process; (exit status, stdout, stderr)."""
    out, err, before, status = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["bayesreg", *arguments]
    try:
        # Warnings are words on stderr, as in the long run: pytest must not make errors of them.
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                main()
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    finally:
        sys.argv = before
    return status, out.getvalue(), err.getvalue()


def changed(line: list[str], dice: random.Random) -> list[str]:
    """Return a command line with one to three words changed."""
    line = list(line)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        action = dice.randrange(7)
        place = dice.randrange(len(line) + 1)
        if action <= 1 and line:
            line[min(place, len(line) - 1)] = dice.choice(ODD)
        elif action == 2 and line:
            del line[min(place, len(line) - 1)]
        elif action == 3:
            line += [dice.choice(OPTIONS), *([dice.choice(ODD)] if dice.random() < 0.7 else [])]
        elif action >= 5:
            # Another number in place of one, as a user would try.
            numbers = [index for index, word in enumerate(line) if re.fullmatch(r"[\d.e+-]+", word)]
            if numbers:
                index = dice.choice(numbers)
                # A large number of these is only long.
                long = line[index - 1] in ("--starts", "--epochs")
                sound = ["1", "2", "10", *(() if long else _NUMBERS)]
                line[index] = dice.choice(sound if dice.random() < 0.7 else _NO_SETTING)
        else:
            line.insert(place, dice.choice([*ODD, *OPTIONS]))
    return line


_BYTES = (files.flip_in_header, files.flip_in_body, files.truncate, files.append, files.splice)
_WORDS = [b"nan", b"-1", b"'x'", b"[]", b"{}", b"null", b"1e400", b",", b"\n", b"\x00", b"\xff", b"[" * 5_000, b'"']

_NUMBER = re.compile(rb"(?<![\w.])-?\d+(\.\d+)?(e-?\d+)?")
_TEXT = re.compile(r"\.(csv|json|yaml|toml|py)$")


def damaged(data: bytes, dice: random.Random) -> bytes:
    if len(data) < 20:
        return data + b"x"
    if dice.random() < 0.5:
        place = dice.randrange(len(data))
        return data[:place] + dice.choice(_WORDS) + data[place + dice.choice([0, 1, 4, 8]) :]
    # The header of a safetensors file is long; of other files a third is as good.
    framed = (len(data) // 3).to_bytes(8, "little") + data
    return dice.choice(_BYTES)(framed, dice)[8:]


def with_no_number(data: bytes, dice: random.Random) -> bytes:
    """Return a text in which one number is none, or one that nothing can be."""
    found = dice.choice(list(_NUMBER.finditer(data)))
    word = dice.choice(["x", "n/a", ""] if dice.random() < 0.5 else _NO_SETTING).encode()
    return data[: found.start()] + word + data[found.end() :]


def foreign_state(dice: random.Random) -> dict[str, object]:
    """Return an optimizer's state dict in which a setting is of another kind."""
    state: dict[str, object] = torch.load("adamw.pt", weights_only=True)
    group = state["param_groups"][0]  # type: ignore[index]
    odd = ["x", 1j, torch.tensor([1.0, 2.0]), -1, None, [], {}, float("nan"), float("inf"), True, 10**400, 1e308, "0.1"]
    key = dice.choice([*group, "momentum", "initial_lr", "param_names"])
    choice = dice.randrange(4)
    if choice == 0:
        state["state"] = dice.choice([
            None,
            [],
            "x",
            {0: None},
            {0: {"exp_avg_sq": "x"}},
            {0: {"step": "x"}},
            {"a": {}},
        ])
    elif choice == 1:
        state["param_groups"] = dice.choice([[], [None], [{}], [[]], "x", [group, group]])
    else:
        group[key] = dice.choice(odd)
    return state


def cases(folder: Path, dice: random.Random) -> Iterator[tuple[str, str, Verdict]]:
    """Yield (route, case, verdict) without end, the first when all is prepared; the current folder is changed."""
    prepare(folder)
    good = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    yield "commands: other", "prepared", Verdict("same")
    weights = {"convert": 6, "explain": 6, "prior": 4, "fit": 3, "strength": 1, "runs": 3, "other": 1}
    while True:
        kind = dice.choices(list(WORKING), list(weights.values()))[0]
        line, spoilt = dice.choice(WORKING[kind]).split(), ""
        # What reads an optimizer's state or a table is a few of the lines, and gets its share.
        wrong_inside = kind in ("explain", "runs") and dice.random() < 0.25
        if wrong_inside:
            wanted = ".pt" if kind == "explain" else "houses.csv"
            line = dice.choice([text for text in WORKING[kind] if wanted in text]).split()
        if wrong_inside or (dice.random() < 0.3 and kind in ("explain", "prior", "fit", "strength", "runs")):
            spoilt = dice.choice([word for word in line if word in good] or [""])
        if spoilt and wrong_inside and kind == "explain":
            torch.save(foreign_state(dice), folder / spoilt)
        elif spoilt:
            spoil = with_no_number if wrong_inside or (_TEXT.search(spoilt) and dice.random() < 0.3) else damaged
            (folder / spoilt).write_bytes(spoil(good[spoilt], dice))
        elif dice.random() < 0.9:
            line = changed(line, dice)
        if dice.random() < 0.3 and kind != "other":
            line.append("--json")
        if "demo" in line and "--help" not in line:
            continue
        before = set(os.listdir(folder))
        yield f"commands: {kind}", f"{' '.join(line)[:200]!r} {spoilt}", _verdict(line, folder, before)
        if spoilt:
            (folder / spoilt).write_bytes(good[spoilt])
        _tidy(folder, before, good)


def _verdict(line: list[str], folder: Path, before: set[str]) -> Verdict:
    found: list[tuple[int, str, str]] = []

    def case() -> str:
        found.append(call(line))
        return ""

    verdict = judge(case, seconds=60.0, told=())
    if verdict.end != "same":
        return verdict
    status, out, err = found[0]
    # A linter that has found something.
    if status == 0 or (status == 3 and line[:1] == ["explain"]):
        return _of_success(line, out)
    if out and "Usage" not in out:
        return Verdict("unclear", f"refused with {status}, and wrote to stdout {out[:80]!r}")
    left = set(os.listdir(folder)) - before
    if left:
        return Verdict("different", f"refused, and left {', '.join(left)}")
    if not err.strip() and "Usage" not in out:
        return Verdict("unclear", f"refused with {status} and no word")
    lines = err.strip().splitlines()
    said = [text for text in lines if not text.startswith("warning: ")]
    # Wrong usage is answered with what was typed in a box.
    if len(err) > LONGEST + 2 * sum(map(len, line)) * (status == 2) or any(ord(c) < 32 for c in err if c != "\n"):
        return Verdict("unclear", f"{len(err)} characters: {err[:80]!r}")
    if status == 1 and (len(said) != 1 or not said[0].startswith("error: ")):
        return Verdict("unclear", f"no single line of error: {err[:200]!r}")
    return Verdict("refused", err)


def _of_success(line: list[str], out: str) -> Verdict:
    if any(ord(character) < 32 for character in out if character != "\n") or "\x9b" in out:
        return Verdict("unclear", "control characters in the output")
    if "--json" not in line or "--help" in line or "-h" in line or "--version" in line:
        return Verdict("accepted")

    def refuse(word: str) -> float:
        raise ValueError(word)

    try:
        json.loads(out, parse_constant=refuse)
    except ValueError as error:
        return Verdict("different", f"--json printed no JSON ({error}): {out[:80]!r}")
    return Verdict("accepted")


def _tidy(folder: Path, before: set[str], good: dict[str, bytes]) -> None:
    for name in set(os.listdir(folder)) - before:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, data in good.items():
        # A command may write over what it was told to.
        if not (folder / name).is_file() or (folder / name).stat().st_size != len(data):
            (folder / name).write_bytes(data)

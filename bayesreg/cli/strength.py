"""`bayesreg strength`: how strong a prior should be for a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bayesreg._support.files import check_writable
from bayesreg.cli._options import (
    DataArgument,
    DecimalOption,
    DropOption,
    FeaturesOption,
    HeaderOption,
    HiddenOption,
    ModelOption,
    NoiseOption,
    SepOption,
    TargetOption,
    TaskOption,
    Word,
    listed,
    whole,
)
from bayesreg.cli._output import for_json, require_no_option, say, show
from bayesreg.errors import InvalidArgumentError
from bayesreg.priors.auto import asks_to_choose, at_scale_one

__all__ = ["strength"]


class MethodName(Word):
    """By what a strength is chosen."""

    AUTO = "auto"
    EVIDENCE = "evidence"
    LOO = "loo"
    GCV = "gcv"
    SPLIT = "split"
    FOLDS = "folds"


def strength(
    data: DataArgument,
    target: TargetOption = None,
    features: FeaturesOption = None,
    drop: DropOption = None,
    sep: SepOption = None,
    decimal: DecimalOption = None,
    header: HeaderOption = None,
    task: TaskOption = None,
    model: ModelOption = "linear",
    hidden: HiddenOption = None,
    prior: Annotated[str, typer.Option(help="In words, with auto for its scale.")] = "gaussian(auto)",
    noise_std: NoiseOption = None,
    method: Annotated[MethodName, MethodName.option("By what it is chosen.")] = MethodName.AUTO,
    seed: Annotated[int, whole(0, 2**63 - 1, "Of the initial weights and of divisions.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Where to draw it, such as strength.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose how strong a prior should be for a table, from all its rows, and say how sure that is."""
    import numpy as np

    import bayesreg as br
    from bayesreg.cli.tabular.data import load_tabular
    from bayesreg.cli.tabular.network import likelihood_of, network_of
    from bayesreg.plots.canvas import require_format

    if picture is not None:
        require_no_option("--picture", picture)
        check_writable(picture)
        require_format(picture)
    if not asks_to_choose(prior):
        raise InvalidArgumentError(
            f"--prior: expected one with a number to be chosen, such as gaussian(auto), got {prior!r}."
        )
    table = load_tabular(
        data, target, task.value if task else None, header, sep=sep, decimal=decimal, features=listed(features),
        drop=listed(drop) or (),
    )  # fmt: skip
    encoded = table.encoded(np.arange(len(table)))
    rows: Any = (encoded.matrix, table.target)
    network, _ = network_of(table, encoded, rows, model, hidden, seed)
    likelihood = likelihood_of(table, rows[1], noise_std)
    family = br.prior_from_words(at_scale_one(prior), len(rows[1]))
    choice = br.choose_strength(network, family, likelihood, rows, method=method.value, seed=seed)
    if picture is not None:
        from matplotlib.figure import Figure

        br.plots.save(choice.plot(Figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()), picture)
    if as_json:
        say(for_json({"task": table.task, "prior": prior, **choice.to_dict()}))
        return
    say(f"Task: {table.words}")
    for note in table.notes:
        say(note)
    show(choice.summary())
    show(choice.path)
    say("Features (and a regression target) are standardised inside the model; the prior's scale is in those units.")

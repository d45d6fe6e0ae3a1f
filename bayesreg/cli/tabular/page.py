"""A run folder as one HTML page that needs no network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bayesreg.cli.tabular.numbers import readable, spread
from bayesreg.errors import PriorFileError

__all__ = ["page_of"]

_PICTURES = {
    "coefficients.png": "Coefficients per standard deviation of each feature, the largest first.",
    "predicted.png": "What was observed against what was predicted, for rows that were not trained on.",
    "calibration.png": "How often it was so, against the probability predicted, for rows that were not trained on.",
    "strength.png": "The criterion by which the prior's strength was chosen, against the strength.",
    "history.png": "NLL and objective during training.",
    "weights.png": "The weights against the density of their prior.",
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5f6368; --line: #d8d8dc; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececef; --soft: #a5a8ad; --line: #3a3a3e; --paper: #161618; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 46rem; padding: 1.5rem 1rem 4rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.lead { color: var(--soft); margin: 0 0 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } .number { text-align: right; } td.number { white-space: nowrap; }
.facts td:last-child { text-align: right; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figcaption, .note { color: var(--soft); font-size: .9rem; } code { font-size: .92em; }
ul { padding-left: 1.2rem; }
"""


def page_of(run: Path) -> str:
    """Return the page.

    Args:
        run: The run folder of `bayesreg fit`.

    Returns:
        HTML.

    Raises:
        PriorFileError: If the folder's numbers are damaged, or not of `bayesreg fit`.
    """
    try:
        metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        parts = list(_parts(metrics))
        title, version = f"{metrics['target']}: a {metrics['model']} model", metrics["bayesreg"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise PriorFileError(f"{run}: not a readable run folder of bayesreg fit ({error}).") from error
    pictures = [_figure(run / name, words) for name, words in _PICTURES.items() if (run / name).is_file()]
    body = "\n".join([f"<h1>{_safe(title)}</h1>", *parts, "<h2>Pictures</h2>" if pictures else "", *pictures])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<p class="note">Written by bayesreg {_safe(version)}.</p>\n</body>\n</html>\n'
    )


def _parts(m: dict[str, Any]) -> Iterable[str]:
    yield f'<p class="lead">{_safe(m["data"])}, {_safe(m["task"])} ({_safe(m["task_why"])})</p>'
    assessment = m.get("assessment")
    if assessment:
        yield "<h2>On rows that were not trained on</h2>"
        rows = [(s["name"], spread(s["mean"], s["std"]), _number(s["baseline"])) for s in assessment["scores"]]
        yield _table(("score", "model", assessment["baseline"]), rows)
        yield f'<p class="note">{_safe(assessment["how"])}</p>'
    yield "<h2>Data</h2>"
    facts: list[tuple[Any, ...]] = [
        ("rows trained on", m["num_data"]), ("features", len(m["features"])), ("target", m["target"]),
    ]  # fmt: skip
    if m["classes"]:
        facts.append(("classes", ", ".join(m["classes"])))
    yield _table(("", ""), facts)
    yield from _columns(m)
    if m.get("notes"):
        yield "<ul>" + "".join(f"<li>{_safe(note)}</li>" for note in m["notes"]) + "</ul>"
    yield "<h2>Prior</h2>"
    yield f"<p><code>{_safe(m['prior'])}</code>, with {_safe(m['likelihood'])}.</p>"
    yield _rows_of(m["priors"])
    yield from _strength(m.get("strength"))
    yield "<h2>Fit</h2>"
    fit = [
        ("objective, nats per example", m["objective"]), ("mean NLL", m["mean_nll"]), ("log prior", m["log_prior"]),
        ("KKT residual", m["kkt_residual"]), ("converged", {True: "yes", False: "no"}.get(m["converged"])),
        ("share of exact zeros", m["exact_zeros"]), ("epoch kept", m["best_epoch"]), ("seconds", m["seconds"]),
    ]  # fmt: skip
    yield _table(("", ""), [(name, value) for name, value in fit if value is not None])
    yield from _coefficients(m)
    yield from _elsewhere(m)


def _columns(m: dict[str, Any]) -> Iterable[str]:
    if not m.get("columns"):
        return
    rows = []
    for column in m["columns"]:
        words = column.get("categories")
        made = (
            f"text: {len(words)} categories ({', '.join(words[:8])}{', ...' if len(words) > 8 else ''})"
            if words
            else "number"
            + (f", missing as {_number(column['fill'])} and one feature that says so" if column["gaps"] else "")
        )
        rows.append((column["name"], made))
    yield _table(("column", "taken as"), rows)


def _strength(strength: dict[str, Any] | None) -> Iterable[str]:
    if not strength:
        return
    low, high = (_number(end) if end is not None else "open" for end in strength["interval"])
    chosen = _number(strength["scale"])
    yield f"<p>Its scale was chosen: <b>{chosen}</b>, within 2 nats of the best from {low} to {high}. "
    yield f"{_safe(strength['why'])}</p>"
    warned = strength["warnings"]
    if warned:
        yield "<ul>" + "".join(f"<li>{_safe(words)}</li>" for words in warned.values()) + "</ul>"


def _coefficients(m: dict[str, Any]) -> Iterable[str]:
    found = m.get("coefficients")
    if not found:
        return
    yield "<h2>Coefficients</h2>"
    order = sorted(found, key=lambda one: -max(abs(value) for value in one["per_std"]))
    zeros = [one["feature"] for one in found if not any(one["per_std"])]
    several = len(m["intercepts"]) > 1
    of = [f"logit of {name}" for name in m["classes"]] if several else [
        f"log odds of {m['classes'][1]}" if m["classes"] else m["target"]
    ]  # fmt: skip
    heads = ("feature", *(f"{one} per unit" for one in of)) + (() if several else ("per standard deviation",))
    rows = [
        (one["feature"], *one["per_unit"], *(() if several else one["per_std"])) for one in order if any(one["per_std"])
    ]
    yield _table(heads, [*rows[:60], ("(intercept)", *m["intercepts"], *(() if several else ("",)))])
    if len(rows) > 60:
        yield f'<p class="note">The 60 largest of {len(rows)}; all are in metrics.json.</p>'
    if zeros:
        yield f"<p>Exactly 0, {len(zeros)} of {len(found)}: {_safe(', '.join(zeros))}.</p>"


def _elsewhere(m: dict[str, Any]) -> Iterable[str]:
    """What the prior is as a weight decay, and in scikit-learn."""
    decays = [(row.get("parameters", ""), row.get("equivalent weight_decay", "")) for row in m["routes"]]
    yield "<h2>The same elsewhere</h2>"
    yield _table(("parameters", "equivalent weight_decay, of a mean loss"), decays)
    words = m.get("sklearn")
    if words:
        yield f"<p>In scikit-learn: <code>{_safe(words)}</code> on the features as the model standardises them.</p>"
    yield "<p>In Python: <code>br.load_run(folder).predict(table)</code>.</p>"


def _rows_of(rows: Sequence[dict[str, Any]]) -> str:
    heads = list(rows[0]) if rows else []
    return _table(heads, [tuple(row.get(head) for head in heads) for row in rows])


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    rows = list(rows)
    # A head stands where its numbers do.
    of_numbers = [bool(rows) and any(_is_number(row[at]) for row in rows) for at in range(len(heads))]
    top = "".join(
        f'<th class="number">{_safe(head)}</th>' if numbers else f"<th>{_safe(head)}</th>"
        for head, numbers in zip(heads, of_numbers, strict=True)
    )
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    kind = "" if any(heads) else ' class="facts"'
    return f'<div class="wide"><table{kind}>{f"<tr>{top}</tr>" if any(heads) else ""}{body}</table></div>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if _is_number(value):
        return f'<td class="number">{_number(value)}</td>'
    return f"<td>{_safe('' if value is None else value)}</td>"


def _number(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else readable(value)


def _safe(value: object) -> str:
    return html.escape(str(value))


def _figure(path: Path, words: str) -> str:
    held = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{_safe(words)}" src="data:image/png;base64,{held}">'
        f"<figcaption>{_safe(words)}</figcaption></figure>"
    )

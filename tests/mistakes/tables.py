"""Mistakes in the linear solver, the estimators and the command line for tables."""

from __future__ import annotations

from tests.mistakes.mutation import Mutation

__all__ = ["TABLES"]

_LINEAR = "trainer/test_linear.py"
_SKLEARN = "estimators/test_against_sklearn.py"
_ESTIMATORS = "estimators/test_estimators.py"
_CLI = "cli/test_tables.py"
_LIKELIHOODS = "likelihoods/test_student_t.py"

_LAYER = "trainer/full_batch/linear"
_GROUPED, _PATHS = "trainer/test_grouped.py", "sparsity/test_strengths.py"

TABLES = [
    # derivatives in closed form
    Mutation("likelihoods/bernoulli.py", "share * torch.sigmoid(-logits)", "share", _LINEAR),
    Mutation("likelihoods/poisson.py", "rate - counts, rate)", "rate - counts, rate.square())", _LINEAR),
    Mutation(
        "likelihoods/categorical.py",
        "return Local(nll, slope, share, share)",
        "return Local(nll, slope, share)",
        _LINEAR,
    ),
    Mutation("likelihoods/categorical.py", "if not bool(counted.all()):", "if False:", _LINEAR),
    Mutation("likelihoods/gaussian.py", "precision * residual, precision)", "precision * residual, 1.0)", _LINEAR),
    Mutation("likelihoods/student_t.py", "(1.0 - square) / (1.0 + square)", "1.0 / (1.0 + square)", _LINEAR),
    Mutation(
        "likelihoods/student_t.py",
        "torch.log1p(square / self.df) + log_scale",
        "torch.log1p(square / self.df)",
        _LIKELIHOODS,
    ),
    Mutation("trainer/full_batch/linear/problem.py", "gain**2 * found.diagonal", "gain * found.diagonal", _LINEAR),
    Mutation(
        "trainer/full_batch/linear/problem.py",
        "rows -= local.outer * (local.outer * moved)",
        "rows += local.outer * (local.outer * moved)",
        _LINEAR,
    ),
    Mutation("trainer/full_batch/linear/problem.py", "grad[self.at_own] = self._own_slope(flat)", "pass", _LINEAR),
    # what is a layer
    Mutation("trainer/full_batch/linear/view.py", "or any(_hooked(module) for module in model.modules())", "", _LINEAR),
    Mutation(
        "trainer/full_batch/linear/view.py",
        "if type(layer) is not nn.Linear or",
        "if not isinstance(layer, nn.Linear) or",
        _LINEAR,
    ),
    Mutation(
        "trainer/full_batch/linear/view.py", "found is None or reading.pick is not None or", "found is None or", _LINEAR
    ),
    Mutation(
        "trainer/full_batch/linear/view.py", "return reading.counting.factor * torch.cat", "return torch.cat", _LINEAR
    ),
    # the minimum
    Mutation(
        "trainer/full_batch/linear/blocks.py",
        "apart = rows - mean[j] if problem.at_bias is not None else rows",
        "apart = rows",
        _LINEAR,
    ),
    Mutation(
        "trainer/full_batch/linear/blocks.py",
        "bias + total * (mean * (lowest - offset)).sum(1)",
        "bias",
        _LINEAR,
    ),
    Mutation("trainer/full_batch/linear/lasso.py", "moved[stops] = 0.0", "pass", _LINEAR),
    Mutation(
        "trainer/full_batch/linear/lasso.py",
        "turns = np.cumsum(2.0 * (rates",
        "turns = np.cumsum(1.0 * (rates",
        _LINEAR,
    ),
    Mutation("trainer/full_batch/linear/newton.py", "if value <= limit:", "if True:", _LINEAR),
    Mutation(
        "strength/walk/held_out.py",
        "return self.task.prior_at(at, self.tau), likelihood",
        "return self.task.prior_at(at, 1.0), likelihood",
        "strength/test_noise_units.py",
    ),
    Mutation(
        "strength/walk/held_out.py",
        "if self.task.noise is None or self.task.homogeneous:",
        "if True:",
        "strength/test_noise_units.py",
    ),
    # estimators
    Mutation(
        "estimators/base.py",
        "count = len(target) if weight is None else float(weight.sum())",
        "count = len(target)",
        _SKLEARN,
    ),
    Mutation(
        "estimators/base.py",
        "features, target, weight = features[kept], target[kept], weight[kept]",
        "pass",
        _ESTIMATORS,
    ),
    Mutation("estimators/spread.py", "np.sqrt(self.variance + np.einsum", "np.sqrt(np.einsum", _SKLEARN),
    Mutation("estimators/spread.py", 'if bool(by_name["bias"].any()):', "if False:", _SKLEARN),
    Mutation(
        "estimators/classifier.py",
        "found = torch.cat([torch.sigmoid(-output), torch.sigmoid(output)], 1)",
        "found = torch.cat([torch.sigmoid(output), torch.sigmoid(-output)], 1)",
        _SKLEARN,
    ),
    Mutation("estimators/from_sklearn.py", "l2=(1.0 - ratio) / c", "l2=ratio / c", _SKLEARN),
    Mutation(
        "estimators/to_sklearn.py",
        "PoissonRegressor(alpha=1.0 / (n * variance)",
        "PoissonRegressor(alpha=1.0 / variance",
        _SKLEARN,
    ),
    Mutation("estimators/making.py", "return copy.deepcopy(module)", "return module", _ESTIMATORS),
    # tables
    Mutation("tables/kinds.py", "there = [value for value in values if value]", "there = list(values)", _CLI),
    Mutation("tables/kinds.py", "if whole and _ID.fullmatch(name.strip()):", "if whole:", _CLI),
    Mutation("trainer/full_batch/linear/few_rows.py", "left.sqrt()[:, None] * mean", "left[:, None] * mean", _LINEAR),
    Mutation("trainer/full_batch/linear/few_rows.py", "weights.T.sqrt()[:, :, None]", "weights.T[:, :, None]", _LINEAR),
    Mutation(
        "trainer/full_batch/linear/few_rows.py",
        "bool(inner.amax() * torch.finfo(inner.dtype).eps < _ROUNDED)",
        "True",
        _LINEAR,
    ),
    Mutation(
        "trainer/full_batch/linear/blocks.py",
        "inverse, whole = few.total, few.mean, few, True",
        "inverse, whole = few.total, few.mean, few, self.dense",
        _LINEAR,
    ),
    Mutation(
        "trainer/full_batch/linear/blocks.py",
        "curved if weight is None else curved * weight[:, None]",
        "curved",
        _LINEAR,
    ),
    Mutation("tables/decimals.py", 'text.replace(".", "").replace(",", ".")', 'text.replace(",", ".")', _CLI),
    Mutation("tables/decimals.py", "if len(numbers) < MOSTLY * len(there):", "if len(numbers) < len(there):", _CLI),
    Mutation("tables/decimals.py", 'if "." in text and NUMBER.fullmatch(text):', "if False:", _CLI),
    Mutation("cli/tabular/data.py", 'if task != "classification":', "if False:", _CLI),
    Mutation("tables/encoder.py", "gaps = not all(column)", "gaps = False", _CLI),
    Mutation("tables/encoder.py", 'if "" in words and _GAP not in known:', "if False:", _CLI),
    Mutation("tables/encoder.py", "feature.fill is not None and index == 0", "feature.fill is not None", _CLI),
    Mutation(
        "cli/tabular/columns.py",
        "    if not odd or len(there) - len(odd) < MOSTLY * len(there):",
        "    if True:",
        _CLI,
    ),
    Mutation(
        "cli/tabular/data.py",
        "encoder = Encoder.of(_rows(self.table, learned), self.kinds)",
        "encoder = Encoder.of(self.table, self.kinds)",
        _CLI,
    ),
    Mutation(
        "cli/tabular/assess.py",
        "rest = np.flatnonzero(place == fold), fitted.train[place != fold]",
        "rest = np.flatnonzero(place == fold), fitted.train",
        _CLI,
    ),
    Mutation("runs/coefficients.py", "raw = gain * weight / std", "raw = gain * weight", _CLI),
    Mutation(
        "runs/coefficients.py",
        "intercepts = shift + gain * bias - raw @ mean",
        "intercepts = shift + gain * bias",
        _CLI,
    ),
    Mutation("cli/tabular/elsewhere.py", "noise / float(network.unstandardize.std)", "noise", _CLI),
    Mutation("_support/files.py", "            old.rename(target)\n", "            pass\n", "cli/test_disk.py"),
    Mutation("cli/tabular/page.py", "return html.escape(str(value))", "return str(value)", _CLI),
    Mutation("runs/load.py", 'if found.names != metrics.get("features"):', "if False:", _CLI),
    # group lasso, and paths
    Mutation(f"{_LAYER}/grouped.py", "if int(problem.free.sum()) > _LARGEST:", "if False:", _GROUPED),
    Mutation(f"{_LAYER}/grouped.py", "if self._rest(way, 1.0, turned) or", "if False and", _GROUPED),
    Mutation(f"{_LAYER}/grouped.py", "self.value < value - rounding", "True", _GROUPED),
    Mutation(f"{_LAYER}/grouped.py", "matrix.reshape(-1)[:: len(rows) + 1] += force", "pass", _GROUPED),
    Mutation(f"{_LAYER}/blocks.py", "(kinks.centre + lowest).reshape(-1)", "lowest.reshape(-1)", _GROUPED),
    Mutation(f"{_LAYER}/blocks.py", "(total * left / share)[:, None, None]", "(0.0 * share)[:, None, None]", _LINEAR),
    Mutation(
        f"{_LAYER}/problem.py", "factor * self._own_scale, None", "factor * self._own_scale, self._last_grad", _PATHS
    ),
    Mutation("sparsity/shared.py", "        problem.at_strength(factor)\n", "", _PATHS),
    Mutation("sparsity/shared.py", "self._before[-1][0] == self._before[-2][0]", "False", _PATHS),
    Mutation("sparsity/null.py", "while not stays(least):", "while False:", _PATHS),
    Mutation("sparsity/shared.py", "if bent else factor", "if not bent else factor", _PATHS),
    Mutation("sparsity/shared.py", "if len({strength for strength, _ in self._before}) < _FITS", "if False", _PATHS),
    Mutation(f"{_LAYER}/view.py", "    reading.likelihood.nll(layer(features), target)\n", "", _PATHS),
    Mutation(f"{_LAYER}/kinks.py", "np.maximum(np.abs(slope) - rates, 0.0)", "np.abs(slope)", _LINEAR),
    Mutation(f"{_LAYER}/kinks.py", "rates * np.sign(offset)", "rates", _LINEAR),
    Mutation(f"{_LAYER}/kinks.py", "0.5 * np.vdot(self.curvature", "np.vdot(self.curvature", _LINEAR),
    Mutation(
        f"{_LAYER}/blocks.py", "weights * self.problem.per\n        total = w", "weights\n        total = w", _LINEAR
    ),
]

"""Mistakes in what chooses a strength: leave-one-out, the evidence, the walk."""

from __future__ import annotations

from tests.mistakes.mutation import Mutation

_FIT = "strength/test_evidence_of_a_fit.py"
_HAT, _LEFT_OUT = "curvature/hat.py", "curvature/test_left_out.py"
_SPECTRUM, _EVIDENCE = "strength/linear/spectrum.py", "strength/test_evidence.py"
_SEVERAL, _GROUPS = "strength/linear/several.py", "strength/test_groups.py"
_WALK, _POINTS, _WALKED = "strength/walk/walk.py", "strength/walk/points.py", "strength/test_walk.py"
_CHOOSE, _TRAINING, _SIGNALS = "strength/test_choose.py", "strength/test_training.py", "strength/test_signals.py"

STRENGTH = [
    # curvature
    Mutation(_HAT, "eye - hessian @ solved.whole", "eye + hessian @ solved.whole", _LEFT_OUT),
    Mutation(_HAT, "rest = rest - through @ moved", "rest = rest + through @ moved", _LEFT_OUT),
    Mutation(_HAT, "own = own + _outer(unseen", "own = own - _outer(unseen", _LEFT_OUT),
    Mutation(_HAT, "schur = schur - through.T @ through", "pass", _LEFT_OUT),
    Mutation(_HAT, "free = free - half.T @ through", "pass", _LEFT_OUT),
    Mutation(_HAT, "matrix / math.sqrt(precision)", "matrix / precision", _LEFT_OUT),
    Mutation(_HAT, "        log_det += extra\n        moved", "        moved", _LEFT_OUT),
    Mutation(_HAT, "traces / rank,", "traces,", _LEFT_OUT),
    Mutation("curvature/left_out.py", "+ hat.shift.reshape", "- hat.shift.reshape", _LEFT_OUT),
    Mutation(
        "curvature/left_out.py",
        "precision if linear else beside(prior, precision)",
        "precision",
        "strength/test_failed_before.py",
    ),
    Mutation("curvature/left_out.py", "not gradient <= STATIONARY", "False", _LEFT_OUT),
    Mutation("curvature/left_out.py", "+ 0.5 * volume", "+ volume", _FIT),
    Mutation("curvature/left_out.py", "elements * math.log(value)", "math.log(value)", _FIT),
    Mutation("curvature/linear.py", "_STEPS = (1.0, 8.0)", "_STEPS = ()", _CHOOSE),
    Mutation("curvature/moves.py", "return 0.5 * float", "return float", "strength/test_sensitivity.py"),
    # the exact evidence
    Mutation(_SPECTRUM, "self.degrees = self.rows - self._free.shape[1]", "self.degrees = self.rows", _EVIDENCE),
    Mutation(_SPECTRUM, "self._free_leverage + self._share", "self._share", _EVIDENCE),
    Mutation(
        _SPECTRUM,
        "rest = 1.0 - (share.sum(-1) + self._free.shape[1]) / self.rows",
        "rest = 1.0 - share.sum(-1) / self.rows",
        _EVIDENCE,
    ),
    Mutation(_SPECTRUM, "volume = self.columns * torch.log1p", "volume = torch.log1p", _EVIDENCE),
    Mutation(_SPECTRUM, 'hat = torch.einsum("nka,...a,nla->...nkl", left, share, left) +', "hat =", _EVIDENCE),
    Mutation(_SPECTRUM, "return 0.5 * float((shares", "return float((shares", "strength/test_sensitivity.py"),
    Mutation(
        "strength/linear/minimum.py",
        "return grid[best] if found is None else",
        "return grid[best] if True else",
        _EVIDENCE,
    ),
    Mutation(
        "strength/by_evidence.py",
        "0.5 * (self.variance(place).log() - place)",
        "0.5 * (self.variance(place).log() + place)",
        _EVIDENCE,
    ),
    Mutation(
        "strength/by_evidence.py",
        'square = float(_Criterion(setting, last, "loo", criterion.noise)',
        'square = float(_Criterion(setting, last, "evidence", criterion.noise)',
        _EVIDENCE,
    ),
    Mutation("strength/linear/design.py", "rows -= matrix @ (centre", "0.0 * matrix @ (centre", _EVIDENCE),
    # scales of their own
    Mutation(_SEVERAL, "(lengths / variance - counts)", "(lengths / variance + counts)", _GROUPS),
    Mutation(_SEVERAL, "- 0.5 * pull\n", "+ 0.5 * pull\n", _GROUPS),
    Mutation(_SEVERAL, "+ 0.5 * pull.sum() * lengths / square", "+ 0.0 * lengths", _GROUPS),
    Mutation(_SEVERAL, "factors.unsqueeze(1) * moved", "moved", _GROUPS),
    Mutation(_SEVERAL, "determined = 1.0 - torch", "determined = torch", _GROUPS),
    Mutation("strength/setting.py", "only=rest)", "only=None)", _GROUPS),
    Mutation("strength/by_walk.py", "prior_with({**places, group: to}, unit)", "prior_with(places)", _GROUPS),
    Mutation("strength/by_walk.py", "prior_with(places, noise)", "prior_with(places)", _GROUPS),
    # the walk
    Mutation(_WALK, "            step /= 2.0\n", "", _WALKED),
    Mutation(_WALK, "            worse, best = 0, last\n", "            best = last\n", _WALKED),
    Mutation(_WALK, "best.objective >= ground.examples * null", "False", _WALKED),
    Mutation(_WALK, "and at <= max(collapsed) + 1e-9", "and False", _WALKED),
    Mutation(_WALK, "if len(collapsed) >= _COLLAPSES or worse:", "if len(collapsed) >= _COLLAPSES:", _WALKED),
    Mutation(_WALK, "(worse and steep and not stronger)", "(worse and steep)", _WALKED),
    Mutation(
        _WALK,
        "ground.examples * measured.held_out + measured.hyper",
        "measured.held_out + measured.hyper",
        "strength/test_choose.py",
    ),
    Mutation(_WALK, "points[start].objective <= min", "points[start].objective > min", _WALKED),
    Mutation(_WALK, "done.add(points[i].at)", "pass", _WALKED),
    Mutation(_POINTS, "-slope / (2.0 * bend)", "-slope / bend", _WALKED),
    Mutation(_POINTS, "(limit - value) / bend", "(limit - value) * bend", _WALKED),
    Mutation("strength/walk/held_out.py", "fitted / len(state) <= self._most", "fitted / len(state) <= 1e9", _CHOOSE),
    Mutation("strength/walk/held_out.py", "scale = 10.0**at * math.sqrt(variance)", "scale = 10.0**at", _CHOOSE),
    Mutation(
        "strength/walk/parts.py",
        "order = order[torch.argsort(targets.cpu()[order], stable=True)]",
        "pass",
        "strength/test_walk.py",
    ),
    Mutation("strength/walk/stochastic.py", "mean.put()", "pass", _TRAINING),
    Mutation(
        "strength/walk/stochastic.py", "self._short(at, part, fit.last)", "self._short(at, part, fit.mean)", _TRAINING
    ),
    Mutation("strength/walk/stochastic.py", "        self._statistics(part)\n", "", _TRAINING),
    Mutation(
        "strength/by_walk.py", "start + _SPARSE_START, directions=(STRONGER,)", "start, directions=(WEAKER,)", _TRAINING
    ),
    Mutation(
        "strength/walk/full_batch.py", "return value + self._problem.kinked_value(flat)", "return value", _TRAINING
    ),
    Mutation("strength/route.py", "per_class < _LEAST", "False", _TRAINING),
    Mutation("strength/route.py", "centred and per_class < _PER_CLASS", "False", _CHOOSE),
    Mutation(
        "strength/setting.py",
        "0.5 * math.exp(2.0 * (middle - eta))",
        "math.exp(2.0 * (middle - eta))",
        "strength/test_evidence.py",
    ),
    # what speaks against it
    Mutation("strength/signals.py", "if spread < _DECIDES:", "if False:", _SIGNALS),
    Mutation("strength/signals.py", "if best in (0, len(points) - 1):", "if False:", _SIGNALS),
    Mutation("strength/signals.py", "if change > error:", "if False:", _SIGNALS),
    Mutation("strength/signals.py", "if deep < lowest + _RIVAL]", "if True]", _SIGNALS),
    Mutation("strength/signals.py", "if apart > 1.0:", "if False:", _SIGNALS),
    Mutation("strength/rehearsal.py", "rest[:validation]", "order[:validation]", "strength/test_rehearsal.py"),
    # noise that is not known, and auto that is no scale
    Mutation(
        "strength/walk/stochastic.py", "part is None and task.noise is None", "True", "strength/test_noise_units.py"
    ),
    Mutation(
        "strength/walk/stochastic.py", "part is None and task.noise is None", "False", "strength/test_noise_units.py"
    ),
    Mutation("priors/auto.py", 'if name == "laplace" else None', "", "cli/test_strength.py"),
    Mutation("priors/auto.py", "or (name in COMMON and _UNNAMED.search(words))", "", "cli/test_strength.py"),
]

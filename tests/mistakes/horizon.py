"""Mistakes in what is said of a whole run, and of a decay for another one."""

from __future__ import annotations

from tests.mistakes.mutation import Mutation

__all__ = ["HORIZON"]

_RUN, _ADAPT = "horizon/test_horizon.py", "horizon/test_adapting.py"
_SETTINGS = "explaining/test_settings.py"
_COUPLED, _FORMATS = "routes/test_coupled_adamw.py", "explaining/test_formats.py"
_LINT, _STATES, _PROBE = (
    "explaining/test_lint.py",
    "explaining/test_foreign_states.py",
    "optimizers/test_conformance.py",
)

HORIZON = [
    Mutation("horizon/forgetting.py", "gain * decay * math.fsum(rates)", "decay * math.fsum(rates)", _RUN),
    Mutation("horizon/forgetting.py", "momentum * buffer + (1.0 - dampening) * weight", "momentum * buffer + weight", _RUN),
    Mutation("horizon/forgetting.py", "weight + momentum * buffer if nesterov else buffer", "buffer", _RUN),
    Mutation("horizon/forgetting.py", "1.0 / largest if largest else math.inf", "1.0 / decay if largest else math.inf", _RUN),
    Mutation("horizon/forgetting.py", "float(left[taken - 1]) if taken else 1.0", "float(left[taken]) if taken else 1.0", _RUN),
    Mutation("horizon/rates.py", "np.arange(1, rising + 1) / max(rising, 1)", "np.arange(rising) / max(rising, 1)", _RUN),
    Mutation("horizon/rates.py", "given * (peak / largest if largest else 1.0)", "given", _RUN),
    Mutation("horizon/rates.py", "if step + 1 < steps:", "if step == 0:", _RUN),
    Mutation("horizon/plan.py", "-(-num_data // batch_size)", "num_data // batch_size", _RUN),
    Mutation("horizon/turning.py", "(1.0 - beta1) / (1.0 + beta1)", "(1.0 - beta1)", _RUN),
    Mutation("horizon/turning.py", "rate / (2.0 * decay)", "rate / decay", _RUN),
    Mutation("horizon/turning.py", "2.0 * rate * decay / (1.0 + momentum)", "2.0 * rate * decay", _RUN),
    Mutation("optimizers/bounds.py", "math.sqrt(max(1.0, rows / columns))", "1.0", _RUN),
    Mutation("explaining/groups/reading.py", '    return "coupled" if facts.rule.kind == "coupled" and steady else None', '    return "coupled"', _RUN),
    Mutation("explaining/findings/run.py", "if abs(left) < 0.05:", "if True:", _RUN),
    Mutation("explaining/formats/hugging_face.py", "math.ceil(total * share)", "int(total * share)", _SETTINGS),
    Mutation("explaining/formats/hugging_face.py", "step / max(1, warmup), after)", "(step + 1) / max(1, warmup), after)", _SETTINGS),
    Mutation("explaining/formats/settings.py", 'name not in ("steps", "epochs")', "True", _SETTINGS),
    Mutation("horizon/adapting.py", "decay * data / math.sqrt(1.0 - noisy + noisy / batch)", "decay * data * batch", _ADAPT),
    Mutation("horizon/adapting.py", "decay * batch * data / rate", "decay * batch / rate", _ADAPT),
    Mutation("horizon/adapting.py", "decay / rate * first.at_peak / second.at_peak", "decay / rate * second.at_peak / first.at_peak", _ADAPT),
    Mutation("horizon/adapting.py", "share / batch / (1.0 - share + share / batch)", "share", _ADAPT),
    Mutation("horizon/run.py", "float(rates.sum() / rate)", "float(rates.sum())", _ADAPT),
    Mutation("horizon/run.py", "if course else steps", "if False else steps", _ADAPT),
    Mutation("horizon/adapting.py", "if k < _REST:", "if k < 0.0:", _ADAPT),
    Mutation("horizon/noise.py", "(1.0 - beta1) / (1.0 + beta1) * (1.0 + beta1**count) / (1.0 - beta1**count)", "0.0", _ADAPT),
    Mutation("horizon/noise.py", "/ (1.0 - beta2**count)", "", _ADAPT),
    Mutation("explaining/lint.py", "if was and not is_now:", "if False:", _LINT),
    Mutation("explaining/lint.py", 'if name not in before["findings"]]', "]", _LINT),
    Mutation("explaining/lint.py", '.replace("%", "%25")', "", _LINT),
    Mutation("explaining/lint.py", 'if held.get("version") != _VERSION:', "if False:", _LINT),
    Mutation("explaining/lint.py", 'kinds.setdefault("gone", []).append(name)', "pass", _LINT),
    Mutation("explaining/groups/layout.py", "if ways.get(start) != 1:", "if False:", _STATES),
    Mutation("explaining/groups/facts.py", "        if key not in seen:\n            found[name] = value", "        found[name] = value", _STATES),
    Mutation("explaining/groups/reading.py", "1.0 / (examples * decay)", "loss_scale.value / decay", _STATES),
    Mutation("optimizers/conformance.py", "late = pulled(40) - pulled(20)", "late = pulled(5)", _PROBE),
    Mutation("optimizers/conformance.py", 'if "held" in arrival(make_optimizer).values():', "if False:", _PROBE),
    Mutation("optimizers/probe.py", "along = (start - ends[0]) * start >= 0.0", "along = (start - ends[0]) * start < 0.0", _PROBE),
    Mutation("optimizers/conformance.py", '"lr": 2.0, "lr²": 4.0', '"lr": 4.0, "lr²": 2.0', _PROBE),
    Mutation("optimizers/conformance.py", "0.5 * _RATE, 0.1 * _RATE, 0.1 * _RATE, 2.0 * _RATE", "_RATE, _RATE, _RATE, _RATE", _PROBE),
    Mutation("optimizers/conformance.py", "if found != wanted:", "if False:", _PROBE),
    Mutation("explaining/findings/pairs.py", 'if "lora_" in name and "lora" not in first:', "if False:", "explaining/test_explain.py"),
    Mutation("explaining/findings/pairs.py", "if decayed[one].decay == decayed[other].decay and", "if", "explaining/test_explain.py"),
    Mutation("explaining/formats/blocks.py", 'own.get("adam_w_mode", True)', 'own.get("adam_w_mode", False)', "explaining/test_formats.py"),
    Mutation("explaining/formats/blocks.py", "clips_known=bool(held)", "clips_known=True", "explaining/test_formats.py"),
    Mutation("explaining/formats/trainers.py", '"lr_scheduler_type": "cosine"', '"lr_scheduler_type": "constant"', "explaining/test_formats.py"),
    Mutation("explaining/formats/trainers.py", "(step + 1.0) / (up + 1.0)", "step / up", "explaining/test_formats.py"),
    Mutation("explaining/formats/trainers.py", "abs(part) < 1e15", "True", "explaining/test_formats.py"),
    # AdamW as Adam
    Mutation("routes/planning/plan.py", "beside if flagged and decay else None", "None", _COUPLED),
    Mutation("routes/planning/plan.py", '"coupled" if flagged and not beside else kind', "kind", _COUPLED),
    Mutation("routes/planning/plan.py", "(centred or one.about_zero) and one.strength", "one.strength", _COUPLED),
    Mutation("routes/attachment.py", "if plan.flag is False and (group[DECOUPLED] or COUPLED in group):", "if plan.flag is False and group[DECOUPLED]:", _COUPLED),
    Mutation("routes/attachment.py", "group[DECOUPLED], group[COUPLED] = False, True", "group[COUPLED] = True", _COUPLED),
    Mutation("routes/attachment.py", "if plan.flag is not None and group.get(DECOUPLED) != plan.flag:", "if False:", _COUPLED),
    Mutation("optimizers/attached.py", "            group[DECOUPLED] = True\n", "            pass\n", _COUPLED),
    Mutation("optimizers/decay.py", "if _KINDS[name] != \"coupled\" and DECOUPLED not in group:", "if _KINDS[name] != \"coupled\":", _COUPLED),
    Mutation("optimizers/decay.py", 'settings.pop(DECOUPLED, None)', "pass", _COUPLED),
    Mutation("routes/resuming.py", "    if not in_place:\n        _require_same(saved, names)\n    for group in groups:\n        del group[NAMES]\n", "    for group in groups:\n        del group[NAMES]\n    if not in_place:\n        _require_same(saved, names)\n", _COUPLED),
    Mutation("routes/report.py", "if coupled:", "if False:", _COUPLED),
    # decays by name, and torchtitan
    Mutation("optimizers/probe.py", "if torch.equal(native, plain):", "if _close(native, plain):", _PROBE),
    Mutation("optimizers/decay.py", "{**group, CORRECTED: False} if group.get(CORRECTED) else group", "group", _PROBE),
    Mutation("explaining/groups/reading.py", "rate = rate * rate / peak", "pass", _PROBE),
    Mutation("explaining/groups/facts.py", 'if seen["matrix"] == "held"', "if False", _PROBE),
    Mutation("explaining/formats/named.py", "own.get(key) is True", "key in own", _FORMATS),
    Mutation("explaining/formats/torchtitan.py", "look.search(info.name)", "look.match(info.name)", _FORMATS),
    Mutation("explaining/formats/torchtitan.py", "times[key] * whole[key]", "whole[key]", _FORMATS),
    Mutation("explaining/formats/torchtitan.py", "(step + 1.0 - stable) / (falling + 1.0)", "(step - stable) / falling", _FORMATS),
    Mutation("explaining/formats/torchtitan.py", "low + (1.0 - low) * left", "left", _FORMATS),
    Mutation("explaining/formats/torchtitan.py", 'all("optimizer_name" in rule for rule in rules)', "True", _FORMATS),
    Mutation("explaining/formats/settings.py", '"param_groups" in given and not patterns', '"param_groups" in given', _FORMATS),
    Mutation("horizon/adapting.py", 'return [{**given, "lr": rate} for rate in each(f"{name} lr", given["lr"])]', "return [given] * count", _ADAPT),
    Mutation("horizon/adapting.py", "if len(given) != count:", "if False:", _ADAPT),
    Mutation("strength/walk/parts.py", "count = min(_FOLDS, n)", "count = _FOLDS", "strength/test_walk.py"),
]  # fmt: skip

"""Mistakes in the trainer: what is counted, what is kept, what is said."""

from __future__ import annotations

from tests.mistakes.mutation import Mutation

__all__ = ["TRAINER"]

_RESUME = "trainer/checkpoint/test_resume.py"
_DAMAGED = "trainer/checkpoint/test_damaged.py"
_TREE = "trainer/checkpoint/test_tree.py"
_BATCHES = "data/test_batches.py"
_COUNTING = "data/test_counting.py"
_MEASURING = "trainer/test_measuring.py"
_AVERAGING = "trainer/test_averaging.py"
_CALLBACKS = "callbacks/test_callbacks.py"
_RUNS = "runs/test_runs.py"

TRAINER = [
    # what goes in
    Mutation(
        "data/batch.py", "at = others[-1] if self.target is None", "at = others[0] if self.target is None", _BATCHES
    ),
    Mutation("data/batch.py", "if k != key and k != self.sample_weight}", "if k != key}", _BATCHES),
    Mutation("data/batch.py", "torch.isfinite(weight) & (weight >= 0)", "torch.isfinite(weight)", _BATCHES),
    Mutation("likelihoods/output.py", "takes and len(by_place) != 1", "takes", _BATCHES),
    Mutation("likelihoods/output.py", "    if not unknown:\n", "    if True:\n", _BATCHES),
    # what counts how much
    Mutation("data/size.py", "return Counting(total, total / rows)", "return Counting(total, 1.0)", _COUNTING),
    Mutation("data/size.py", "factor=observations / total", "factor=1.0", _COUNTING),
    Mutation("data/size.py", "        torch.set_rng_state(here)\n", "", _COUNTING),
    Mutation("data/size.py", "        generator.set_state(state)\n", "            pass\n", _COUNTING),
    Mutation("data/reading.py", "self.counting.factor * batch.weight.to(each)", "batch.weight.to(each)", _COUNTING),
    Mutation(
        "likelihoods/tokens.py",
        "return (output[:, :-1], target[:, 1:]) if self.shift",
        "return (output, target) if self.shift",
        _COUNTING,
    ),
    Mutation("likelihoods/tokens.py", "tokens = target[:, 1:] if self.shift else target", "tokens = target", _COUNTING),
    Mutation("trainer/stepping/loop.py", "whole if per_row is None else rows * per_row", "whole", _COUNTING),
    Mutation("trainer/trainer.py", 'name.endswith(("ForCausalLM", "LMHeadModel"))', "False", _COUNTING),
    # what is kept
    Mutation("trainer/stepping/run.py", "        self._random.restore(self._epoch_began)\n", "", _RESUME),
    Mutation("trainer/stepping/run.py", '        self._random.restore(self._own(left_off["random"]))\n', "", _RESUME),
    Mutation("trainer/stepping/run.py", '        _in_full(self._optimizer, state["optimizer"])\n', "", _RESUME),
    Mutation(
        "trainer/stepping/run.py",
        '            self._scheduler.load_state_dict(state["scheduler"])\n',
        "            pass\n",
        _RESUME,
    ),
    Mutation("trainer/stepping/feed.py", "    iter(loader)\n", "", _RESUME),
    Mutation("trainer/stepping/feed.py", "    for _ in islice(indices, done):\n        pass\n", "", _RESUME),
    Mutation(
        "trainer/checkpoint/randomness.py",
        "        random.setstate((version, tuple(numbers.tolist()), spare))\n",
        "",
        _RESUME,
    ),
    Mutation(
        "trainer/checkpoint/keeper.py",
        '            self._prior.restore(self.found["changed"])\n',
        "            pass\n",
        _RESUME,
    ),
    Mutation(
        "trainer/checkpoint/keeper.py", 'require_same(folder.path, self.found["setup"], self._setup)', "pass", _RESUME
    ),
    Mutation(
        "trainer/checkpoint/keeper.py",
        "if not resume and (there := folder.found()):",
        "if False and (there := folder.found()):",
        _RESUME,
    ),
    Mutation("trainer/checkpoint/keeper.py", "            pack(state())\n", "", _RESUME),
    Mutation(
        "trainer/checkpoint/folder.py", "if lock.exists() and _place(lock.stat()) in _AT_WORK:", "if False:", _RESUME
    ),
    Mutation(
        "trainer/checkpoint/folder.py",
        "for old in self.found()[self._keep :]:",
        "for old in self.found()[1:]:",
        _DAMAGED,
    ),
    Mutation(
        "trainer/checkpoint/folder.py",
        "            except PriorFileError as error:\n",
        "            except OSError as error:\n",
        _DAMAGED,
    ),
    Mutation("trainer/checkpoint/folder.py", 'if record["format"] > _FORMAT:', "if False:", _DAMAGED),
    Mutation(
        "trainer/checkpoint/folder.py", '    if file.name != f"step-', '    if False and file.name != f"step-', _DAMAGED
    ),
    Mutation("trainer/checkpoint/tree.py", 'here.to("cpu", copy=True)', "here", _TREE),
    Mutation("trainer/checkpoint/tree.py", "value if math.isfinite(value) else", "value if value == value else", _TREE),
    Mutation("trainer/epochs.py", '"best": None if current else self.best.states', '"best": None', _RESUME),
    Mutation(
        "trainer/full_batch/proximal.py",
        "if last <= tolerance or stalled >= _STALLED:\n            begun",
        "if False:\n            begun",
        _RESUME,
    ),
    # what comes out
    Mutation(
        "data/predicting.py",
        "return (distribution.probs > 0.5).long()",
        "return (distribution.probs > 0.4).long()",
        _MEASURING,
    ),
    Mutation(
        "data/reading.py",
        "            module.training = training\n",
        "            module.training = True\n",
        _MEASURING,
    ),
    Mutation(
        "trainer/epochs.py", "return self.settings.sign * float(record[name])", "return float(record[name])", _MEASURING
    ),
    Mutation(
        "trainer/epochs.py",
        "at.step % settings.evaluate_every == 0",
        "at.step % settings.evaluate_every == 1",
        _MEASURING,
    ),
    Mutation("trainer/epochs.py", "epoch = at.epoch if at.within else at.epoch - 1", "epoch = at.epoch", _CALLBACKS),
    Mutation("trainer/off_scale.py", "OFF_SCALE = 100.0", "OFF_SCALE = 1e9", _MEASURING),
    Mutation(
        "horizon/schedules.py",
        "start_factor=1.0 / rising, total_iters=rising - 1",
        "start_factor=1.0 / rising, total_iters=rising",
        _MEASURING,
    ),
    Mutation("runs/run.py", "pick=self.output", "pick=None", _RUNS),
    Mutation("likelihoods/saved.py", "math.log(Gaussian(noise).noise_std)", "Gaussian(noise).noise_std", _RUNS),
    # averages and what looks on
    Mutation(
        "trainer/averaging.py",
        "epoch >= self._begins:\n            self._averaged.update_parameters(self._model)\n\n    def after_epoch",
        "True:\n            self._averaged.update_parameters(self._model)\n\n    def after_epoch",
        _AVERAGING,
    ),
    Mutation(
        "trainer/averaging.py",
        "return 1 + int(_BEFORE_SWA * epochs)",
        "return 2 + int(_BEFORE_SWA * epochs)",
        _AVERAGING,
    ),
    Mutation("trainer/averaging.py", "            parameter[mask] = values\n", "            pass\n", _AVERAGING),
    Mutation("trainer/averaging.py", "            before.restore()\n", "            pass\n", _AVERAGING),
    Mutation(
        "callbacks/jsonl.py", "return step <= training.step and not still", "return step <= training.step", _CALLBACKS
    ),
    Mutation(
        "trainer/stepping/loop.py",
        "if self.clip_norm is not None or self.measure_norm:\n            self.scaler",
        "if self.clip_norm is not None:\n            self.scaler",
        _CALLBACKS,
    ),
    # exact data: no noise is left, and round-off is no progress
    Mutation("trainer/full_batch/lbfgs.py", "_PROGRESS = 1e-8", "_PROGRESS = 0.0", "trainer/test_solvers.py"),
    Mutation("trainer/full_batch/lbfgs.py", "_PROGRESS = 1e-8", "_PROGRESS = 1e8", "trainer/test_solvers.py"),
]

"""Mistakes at the edges: files, folders, words, arguments."""

from __future__ import annotations

from tests.mistakes.mutation import Mutation

EDGES = [
    Mutation("_support/files.py", "        temporary.chmod(mode)\n", "", "cli/test_disk.py"),
    Mutation("_support/files.py", "shutil.copymode(probe, file)", "pass", "cli/test_fit_edges.py"),
    Mutation(
        "_support/files.py",
        "if not all(inside.name.startswith(begins) or _THEIRS.fullmatch(inside.name) for inside in left.iterdir()):",
        "if False:",
        "cli/test_disk.py",
    ),
    Mutation(
        "_support/files.py", "                    shutil.rmtree(left, ignore_errors=True)\n", "", "cli/test_disk.py"
    ),
    Mutation(
        "_support/files.py",
        "        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
        "cli/test_disk.py",
    ),
    Mutation("_support/files.py", "done = target.exists()", "done = True", "cli/test_disk.py"),
    Mutation(
        "_support/files.py",
        "number = error.errno if isinstance(error, OSError) else _number_in(str(error))",
        "number = None",
        "cli/test_disk.py",
    ),
    Mutation(
        "_support/sealed.py", 'if expected is None and "checksum" in record:', "if False:", "model_prior/test_file.py"
    ),
    Mutation(
        "_support/sealed.py",
        "if expected is not None and expected != _digest(text, tensors):",
        "if False:",
        "model_prior/test_file.py",
    ),
    Mutation(
        "_support/sealed.py",
        "json.dumps([name, str(tensor.dtype), list(tensor.shape)])",
        "json.dumps([name])",
        "model_prior/test_file.py",
    ),
    Mutation(
        "_support/sealed.py",
        "found = hashlib.sha256(text.encode())",
        "found = hashlib.sha256()",
        "model_prior/test_file.py",
    ),
    Mutation("_support/sealed.py", "if len(held) < len(pairs):", "if False:", "model_prior/test_file.py"),
    Mutation("_support/sealed.py", ", parse_constant=refuse", "", "model_prior/test_file.py"),
    Mutation(
        "references/files.py", 'if "bayesreg" in (file.metadata() or {}):', "if False:", "model_prior/test_file.py"
    ),
    Mutation(
        "references/files.py",
        "if names and all(_OF_A_PRIOR",
        "if not names and all(_OF_A_PRIOR",
        "model_prior/test_file.py",
    ),
    Mutation("model_prior/file.py", "            if again:\n", "            if False:\n", "model_prior/test_file.py"),
    Mutation("model_prior/file.py", 'sorted(set(tensors) - read - {"empty"})', "[]", "model_prior/test_file.py"),
    Mutation(
        "model_prior/file.py", "if not tensors[key].is_floating_point():", "if False:", "model_prior/test_file.py"
    ),
    Mutation(
        "model_prior/file.py", "type(version) is not int or version < 1", "int(version) < 1", "model_prior/test_file.py"
    ),
    Mutation("model_prior/file.py", "len(set(prior.joins)) < len(prior.joins) or ", "", "model_prior/test_file.py"),
    Mutation("model_prior/file.py", "not {name, *names} & set(prior.joins)", "False", "model_prior/test_file.py"),
    Mutation("runs/load.py", "        if not trust:\n", "        if False:\n", "cli/test_fit_edges.py"),
    Mutation("runs/load.py", "type(size) is int and 0 < size < 2**31", "size", "cli/test_fit_edges.py"),
    Mutation("runs/load.py", "    if lacking or beyond:\n", "    if False:\n", "cli/test_fit_edges.py"),
    Mutation(
        "runs/load.py",
        "net: str | nn.Module = name if model is None else copy.deepcopy(model)",
        "net: str | nn.Module = name if model is None else model",
        "cli/test_fit_edges.py",
    ),
    Mutation(
        "tables/read.py", "for name in features) and not numbered:", "for name in features):", "cli/test_fit_edges.py"
    ),
    Mutation(
        "tables/read.py", "if features and not told and all(", "if not features and all(", "cli/test_fit_edges.py"
    ),
    Mutation("cli/tabular/data.py", "if largest > 1e150:", "if largest > 1e308:", "cli/test_fit_edges.py"),
    Mutation(
        "cli/tabular/data.py",
        'labels.dtype.kind not in "biufUS"',
        'labels.dtype.kind not in "biufUScmM"',
        "cli/test_fit_edges.py",
    ),
    Mutation("tables/read.py", '    if "" in header:\n', "    if False:\n", "cli/test_fit_edges.py"),
    Mutation(
        "cli/tabular/network.py",
        "return len(table.classes) if len(table.classes) > 2 else 1",
        "return max(len(table.classes), 1)",
        "cli/test_fit_edges.py",
    ),
    Mutation("cli/fit.py", "    check_writable(output)\n", "", "cli/test_fit_edges.py"),
    Mutation("cli/tabular/procedure.py", "            if given:\n", "            if False:\n", "cli/test_cli.py"),
    Mutation(
        "priors/common_words.py",
        "math.sqrt(ridge_alpha_to_variance(value, noise_std))",
        "ridge_alpha_to_variance(value, noise_std)",
        "priors/test_words.py",
    ),
    Mutation(
        "priors/common_words.py", '"l1" if given[0] == "coefficient" else given[0]', '"scale"', "priors/test_words.py"
    ),
    Mutation("_text.py", '{"Cc", "Cf", "Cs", "Zl", "Zp"}', '{"Cc"}', "test_calls.py"),
    Mutation("errors.py", "return one_line(super().__str__())", "return super().__str__()", "test_calls.py"),
    Mutation(
        "_support/calls.py",
        "(said := wrong_kind(function, arguments, given, firm=True))",
        '(said := "")',
        "test_calls.py",
    ),
    Mutation("priors/contract/holder.py", "value.dtype is torch.bool or ", "", "test_calls.py"),
    Mutation("priors/contract/holder.py", "not 0 <= number < 1e300", "not number < 1e300", "test_calls.py"),
    Mutation("priors/contract/holder.py", 'checks.positive_float("factor", ', "float(", "test_calls.py"),
    Mutation("_support/checks.py", "if not 0 < square < math.inf:", "if square < 0:", "test_calls.py"),
    Mutation(
        "explaining/groups/recognise.py",
        "not 0 <= held < 1e300",
        "not held < 1e300",
        "explaining/test_foreign_states.py",
    ),
    Mutation(
        "trainer/trainer.py", "result if self._fits == 1 else", "result if self._fits else", "trainer/test_trainer.py"
    ),
    Mutation("model_prior/model_prior.py", "if selected is not None and not groups:", "if False:", "test_calls.py"),
    Mutation(
        "conversion/table.py",
        "notes: tuple[str, ...] = (_LOGISTIC,)",
        "notes: tuple[str, ...] = ()",
        "conversion/test_table.py",
    ),
    Mutation("likelihoods/output.py", "or not _MISFIT.search(str(error))", "or True", "test_calls.py"),
]

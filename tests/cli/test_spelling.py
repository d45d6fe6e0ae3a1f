"""Numbers, notations and names on the command line, as people write them, and what is refused of them."""

from __future__ import annotations

import pytest

from tests.cli.common import answer, refusal


@pytest.mark.parametrize("written", ["5e4", "50_000", "5.0E4", "50000"])
def test_a_number_of_examples_is_written_as_people_do(run, written):
    assert answer(run, "convert", 5e-4, "--num-data", written)["variance"] == pytest.approx(0.04)


@pytest.mark.parametrize("written", ["50k", "1e-3", "2.5", "0x10", "", "nan", "1e999"])
def test_what_is_no_number_of_examples_is_refused(run, written):
    assert "expected a whole number such as 50000" in refusal(run, "convert", 5e-4, "--num-data", written)


@pytest.mark.parametrize(("written", "kind"), [("weight_decay", "weight-decay"), ("WD", "weight-decay"), ("sd", "std")])
def test_notations_have_their_short_names(run, written, kind):
    more = ("--num-data", 10)
    assert answer(run, "convert", 0.5, "--from", written, *more) == answer(run, "convert", 0.5, "--from", kind, *more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "1e-200", "--from", "l1-coefficient", "--num-data", "10"], "gives a prior a finite width > 0"),
        (["convert", "1e200", "--from", "laplace-scale", "--num-data", "10"], "gives a prior a finite width > 0"),
        (["convert", "1", "--num-data", "10", "--noise-std", "1e308"], "a value whose square is a number"),
        (
            ["convert", "1", "--from", "weigth_decay", "--num-data", "3"],
            "'weigth_decay' is not one of weight-decay, variance",
        ),
        (["convert", "1", "--num-data", "3", "--num-outputs", "2"], "--num-outputs: it plays no part with --loss mean"),
        (
            ["explain", "--optimizer", "sgd", "--num-data", "3", "--noise-std", "2"],
            "--noise-std: it plays no part with --loss mean",
        ),
        (["prior", "show", "."], "prior.safetensors: no such file"),
        (["fit", "iris", "--output", "--json"], "--output: expected a path, got '--json'"),
        (["report", "run", "--output", "--json"], "--output: expected a path, got '--json'"),
    ],
)
def test_more_of_what_is_refused(run, arguments, message):
    assert message in refusal(run, *arguments)


@pytest.mark.parametrize("name", ["deep.json", "deep.yaml"])
def test_settings_nested_too_deeply_are_refused(run, tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000)
    assert "deep" in refusal(run, "explain", name, "--num-data", 10)


def test_a_run_folder_is_shown_as_its_prior_file_is(run):
    answer(run, "fit", "iris", "--output", "run")
    assert answer(run, "prior", "show", "run") == answer(run, "prior", "show", "run/prior.safetensors")


def test_names_without_words_between_dots_are_refused(run):
    answer(run, "fit", "iris", "--output", "run")
    more = ("--rename", "net.weight=.", "-o", "out.safetensors")
    assert "expected a name of words between dots" in refusal(run, "prior", "convert", "run/prior.safetensors", *more)

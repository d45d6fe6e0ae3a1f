"""What a command answers, and how it refuses."""

from __future__ import annotations

import json


def answer(run, *arguments):
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def refusal(run, *arguments):
    status, out, err = run(*arguments)
    assert status != 0
    assert out == ""
    assert "Traceback" not in err
    return err

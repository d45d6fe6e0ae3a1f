"""Build the wheel and the sdist, install each away from the repository, and use what was installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

# What a missing file would break: names that load on use, types, the command line.
SMOKE = """
import sys, pathlib, importlib.metadata
import bayesreg as br, torch
root = pathlib.Path(br.__file__).parent
assert root.parent == pathlib.Path(sys.argv[1]), root
assert (root / "py.typed").is_file() and (root / "__init__.pyi").is_file()
assert importlib.metadata.version("bayesreg") == br.__version__
for name in br.__all__:
    getattr(br, name)
model = torch.nn.Linear(3, 2)
prior = br.ModelPrior(model, br.Gaussian(0.1))
optimizer = torch.optim.SGD(prior.param_groups(), lr=0.1)
br.attach(optimizer, prior, num_data=100)
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
assert abs(optimizer.param_groups[0]["weight_decay"] - 1.0) < 1e-12
from bayesreg.cli import main
sys.argv = ["bayesreg", "convert", "5e-4", "--num-data", "50000"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""


def run(*command: str, cwd: Path, **environment: str) -> None:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def main() -> int:
    """Return 0 where both install and work."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
        built = sorted(folder.glob("bayesreg-*"))
        if [path.suffix for path in built] != [".whl", ".gz"] and [path.suffix for path in built] != [".gz", ".whl"]:
            sys.exit(f"expected a wheel and an sdist, got {[path.name for path in built]}")
        for path in built:
            site = folder / f"from-{path.suffix[1:]}"
            run(
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"),
                *("--target", str(site), str(path)),
                cwd=folder,
            )
            # The dependencies are those of this environment; the package itself is found in `site` first.
            run(sys.executable, "-W", "error::UserWarning", "-c", SMOKE, str(site), cwd=folder, PYTHONPATH=str(site))
            print(f"{path.name}: installs and works")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A noise that cannot be what was said."""

from __future__ import annotations

import warnings

from bayesreg.errors import OffScaleWarning

__all__ = ["AT_FIRST", "OFF_SCALE", "warn_off_scale"]

#: Residuals in noise standard deviations from which something is wrong: after training, and before it, when a model
#: that knows nothing may be far off all the same.
OFF_SCALE, AT_FIRST = 100.0, 10_000.0


def warn_off_scale(ratio: float, when: str) -> None:
    """Say that residuals are far larger than the noise.

    Args:
        ratio: Their root mean square, in noise standard deviations.
        when: In words.
    """
    warnings.warn(
        f"likelihood: residuals {when} are {ratio:,.0f} noise standard deviations, so the likelihood drowns any prior: "
        f"give the noise in the units of the target, Gaussian('learned') to fit it, or standardise the target.",
        OffScaleWarning,
        stacklevel=2,
    )

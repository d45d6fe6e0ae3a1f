"""A noise that cannot be what was said."""

from __future__ import annotations

import warnings

from bayesreg.errors import OffScaleWarning

__all__ = ["OFF_SCALE", "warn_off_scale"]

#: Residuals after training, in noise standard deviations, from which something is wrong.
OFF_SCALE = 100.0


def warn_off_scale(ratio: float) -> None:
    """Say that residuals are far larger than the noise.

    Args:
        ratio: Their root mean square, in noise standard deviations.
    """
    warnings.warn(
        f"likelihood: residuals after training are {ratio:,.0f} noise standard deviations, so the likelihood drowns "
        f"any prior: give the noise in the units of the target, Gaussian('learned'), or standardise the target.",
        OffScaleWarning,
        stacklevel=2,
    )

"""Numbers as people read them."""

from __future__ import annotations

import math

__all__ = ["readable", "spread"]


def readable(value: float) -> str:
    """Return a number with four digits that count, thousands by commas, and an exponent only where it must have one.

    Args:
        value: The number.

    Returns:
        Text.

    Example:
        >>> [readable(value) for value in (26518.3, -0.0822, 1234567.0, 3e-7, 2.0)]
        ['26,520', '-0.0822', '1,235,000', '3e-07', '2']
    """
    if not math.isfinite(value) or value == 0.0 or not 1e-4 <= abs(value) < 1e15:
        return f"{value:.4g}"
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000.0 else f"{rounded:.4g}"


def spread(mean: float, std: float | None) -> str:
    """Return a mean and a standard deviation to the digits that the latter leaves; the mean alone without one.

    Args:
        mean: The mean.
        std: The standard deviation, or None.

    Returns:
        Text.

    Example:
        >>> spread(26518.3, 2512.0), spread(0.95694, 0.0092), spread(0.5, None)
        ('26,520 ± 2,500', '0.9569 ± 0.0092', '0.5')
    """
    return readable(mean) if std is None else f"{readable(mean)} ± {readable(float(f'{std:.2g}'))}"

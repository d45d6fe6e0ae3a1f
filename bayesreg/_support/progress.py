"""The progress bar: in terminals and notebooks, quiet elsewhere."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(total: int | None, label: str, progress: bool | None, *, main: bool = True) -> Any:
    """Return a tqdm bar.

    Args:
        total: Steps in all; None where nobody knows.
        label: What is going on.
        progress: Show it; None: only where the output is a terminal or notebook.
        main: Whether this is the main process; others show nothing.

    Returns:
        The bar.
    """
    with warnings.catch_warnings():
        # In a notebook without ipywidgets it falls back to text, and says so at import, wanted or not.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    # tqdm's None means: only where the output is a terminal.
    disable = None if progress is None else not progress
    return tqdm(total=total, desc=label, disable=disable if main else True, leave=False)

"""The progress bar: in terminals and notebooks, quiet elsewhere."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["load_tqdm", "progress_bar"]


def load_tqdm() -> Any:
    """Return tqdm's bar, loaded without a word.

    In a notebook without ipywidgets it falls back to text and says so at its first import, which libraries such as
    Accelerate and Pyro do too, wanted or not.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm


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
    # tqdm's None means: only where the output is a terminal.
    disable = None if progress is None else not progress
    return load_tqdm()(total=total, desc=label, disable=disable if main else True, leave=False)

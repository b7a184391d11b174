"""Show things where there is a notebook, and where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["notebook_display", "progress_bar"]


def notebook_display() -> Callable[..., Any] | None:
    """Return IPython's ``display`` if this code runs in an IPython shell or kernel, else ``None``."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    return None if get_ipython() is None else display


def progress_bar(total: int, unit: str, *, initial: int = 0, shown: bool = True) -> Any:
    """Return a tqdm bar of ``total`` units, of which ``initial`` are done; nothing is printed if it is not shown."""
    from tqdm import tqdm

    # Plain text on stdout: a widget would not survive in a saved notebook, and stderr there looks like a failure.
    options: dict[str, Any] = {"file": sys.stdout, "leave": False, "dynamic_ncols": True}
    return tqdm(total=total, initial=initial, unit=unit, disable=not shown, **options)

"""Find out whether there is a notebook to show things in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["notebook_display"]


def notebook_display() -> Callable[..., Any] | None:
    """Return IPython's ``display`` if this code runs in an IPython shell or kernel, else ``None``."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    return None if get_ipython() is None else display

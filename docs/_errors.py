"""The error that ends the building of the site with a sentence instead of a traceback."""

from __future__ import annotations

__all__ = ["SiteError"]


class SiteError(Exception):
    """Something the person who builds the site can mend; the message says what and where."""

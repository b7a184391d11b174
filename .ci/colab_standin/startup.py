"""Runs when a kernel starts, before the first cell: in Colab the package is imported by then."""

import google.colab  # noqa: F401

"""Tests that open the notebooks and the site in a browser; run by `make browser`."""

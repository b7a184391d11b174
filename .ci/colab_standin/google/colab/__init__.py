"""Stands for Colab's own package, by whose presence a notebook knows where it runs. It can do nothing else."""

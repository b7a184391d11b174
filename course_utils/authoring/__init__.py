"""What makes the notebooks: build, addresses, solutions, kernels; nothing a student runs."""

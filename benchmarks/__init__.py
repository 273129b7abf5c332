"""What `make bench` runs: `python -m benchmarks.<name>`, from the project's folder."""

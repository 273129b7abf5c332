"""The network: its layers, its training with sums that are the same everywhere, its predictions and metrics."""

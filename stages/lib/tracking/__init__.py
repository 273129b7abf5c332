"""MLflow's store: runs, registered models and which of them is promoted."""

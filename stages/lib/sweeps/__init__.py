"""Many trainings with different parameters: the plan, the trials and their results."""

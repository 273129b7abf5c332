"""Whether outputs are what dvc.lock says, and whether another machine gives the same."""

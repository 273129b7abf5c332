"""How a stage is started: its environment, its lock, signals, its section of params.yaml, its times."""

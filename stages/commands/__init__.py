"""What a person types beside `dvc repro`: the subcommands of `pipeline`, one module each."""

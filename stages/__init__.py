"""The pipeline's stages, one module each: `python -m stages.<name>` runs one, `dvc repro` runs what is due."""

from stages.lib.runner.startup import prepare_process

# Before the first import of a large package, which takes seconds and heeds the environment.
prepare_process(__file__)

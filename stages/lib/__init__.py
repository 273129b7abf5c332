"""What the stages share: leaf modules, one idea per file. Nothing here imports a stage or a command."""

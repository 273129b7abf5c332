"""What the stages share, one package a subject. Nothing here imports a stage or a command."""

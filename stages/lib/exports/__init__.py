"""The files for other runtimes, and the proof that they answer as Keras does."""

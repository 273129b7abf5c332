"""The int8 network in C: its source, its exact answers, the memory it takes, and what firmware needs beside it."""

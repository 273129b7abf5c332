"""The int8 network as a page for browsers."""

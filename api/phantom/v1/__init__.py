"""The node service, version 1."""

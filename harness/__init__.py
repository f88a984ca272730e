"""Starts real daemons, registries and tools on private paths, for tests, benchmarks and the demo."""

"""Real daemons, registries, images and tools, started on private paths for tests, benchmarks and the demo."""

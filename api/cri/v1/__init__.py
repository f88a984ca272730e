"""CRI v1, as of Kubernetes 1.36."""

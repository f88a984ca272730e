"""A whole Kubernetes cluster of one node, with everything in namespaces of its own."""

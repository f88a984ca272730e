"""What stands behind a streaming URL: an exec's process, a container's copied output, a pod's ports."""

"""The sessions of streaming URLs: an exec's process, a container's output and input, a pod's ports."""

"""What containerd and its shims say to each other."""

"""Resource usage of containers and pods: read on a thread, summed up, returned as stats and metrics."""

"""What containers and pods use: read off the event loop, summed up, and told as stats and metrics."""

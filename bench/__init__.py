"""The same pod cycle over any CRI endpoint, measured side by side: `python -m bench`."""

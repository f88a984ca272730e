"""Odd images: each is run here and by containerd, and both have to come to what the corpus says."""

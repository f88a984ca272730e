"""Phantom as a containerd shim: containerd's task service, over the rooms of `phantom_cri`."""

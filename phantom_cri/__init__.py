"""Phantom Fragment: a Kubernetes node runtime that starts sandboxes from warm fragments."""

__version__ = "0.1.0"

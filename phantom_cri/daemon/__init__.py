"""A daemon's start and upkeep: it locks its folders, recovers an earlier daemon's pods, updates gauges.

Only `__main__` uses this package: before the first request is served, and in the background later.
"""

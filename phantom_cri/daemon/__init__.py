"""One daemon among those that come and go: sole owner of its folders, what an earlier one left, its gauges.

Verbs do not know of it: `__main__` alone calls what is here, before the first request and beside them all.
"""

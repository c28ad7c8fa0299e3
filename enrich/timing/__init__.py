"""Timing: when a run must end, how far it is, what its buckets took, and what such runs took here before."""

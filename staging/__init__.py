"""The system under drill: a job queue and its workers, small enough for a laptop, with failures that are real.

Standard library only, on purpose: a worker is up in tens of milliseconds and needs about 10 MiB before its first
job, so a lowered memory limit kills it while it works and not while it imports. Knows nothing of the harness.
"""

"""Shared memory of one node: segments, allocation in them, and views that pin what they show."""

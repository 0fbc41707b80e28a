"""The metrics API group."""

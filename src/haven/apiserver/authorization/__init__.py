"""Authorization of requests: see interface.py."""

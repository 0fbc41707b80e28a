"""Authentication of requests: see interface.py."""

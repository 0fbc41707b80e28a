"""Admission of requests: see interface.py."""

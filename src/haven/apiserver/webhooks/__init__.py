"""Calls that the API server makes to programs of its users."""

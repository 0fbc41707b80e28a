"""Encryption at rest: what is stored of chosen resources can be read by who has the keys."""

"""Audit: who asked for what, when, and what came of it, for those who must be able to prove it."""

"""The stats API group."""

"""The resource API group."""

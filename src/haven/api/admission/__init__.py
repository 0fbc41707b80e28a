"""The admission API group."""

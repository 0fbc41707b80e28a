"""The apidiscovery API group."""

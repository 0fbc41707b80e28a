"""The pod network of one node: configuration for the standard CNI plugins."""

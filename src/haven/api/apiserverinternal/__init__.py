"""The apiserverinternal API group."""

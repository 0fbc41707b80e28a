"""The storagemigration API group."""

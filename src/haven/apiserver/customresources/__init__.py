"""Custom resources: what CustomResourceDefinitions declare, served like everything else."""

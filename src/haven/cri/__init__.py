"""The container runtime: CRI v1 as typed calls, its real driver and a fake that keeps the same contract."""

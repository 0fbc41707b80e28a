"""Simulated nodes: real Node objects, leases and Pod statuses, and a kubelet's server, with nothing behind them."""

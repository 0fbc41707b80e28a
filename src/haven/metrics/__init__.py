"""What every room counts, and how that is shown to Prometheus under upstream's names."""

"""What a fresh control plane holds, and how it is kept up to date."""

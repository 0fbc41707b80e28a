"""A cluster on machines: trust, preflight checks, the journal of what was changed on a host, reset."""

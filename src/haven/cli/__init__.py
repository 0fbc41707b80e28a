"""The haven command: one file per sub-command; wiring, settings, signals, progress, tables."""

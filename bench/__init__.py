"""The budgets of Haven, measured: `make bench`, or `python -m bench --help`."""

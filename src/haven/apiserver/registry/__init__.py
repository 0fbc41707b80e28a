"""Reading and writing of every resource: one generic registry, and the few rules that particular kinds need."""

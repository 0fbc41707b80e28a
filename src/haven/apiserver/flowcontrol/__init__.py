"""API priority and fairness: how much each kind of request may take, and whose turn it is when there is not enough."""

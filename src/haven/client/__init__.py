"""How a component speaks to an API server: REST, watches, informers, work queues, leader election."""

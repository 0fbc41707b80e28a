"""What goes through the API server to a node, a Pod or a Service: exec, attach, logs, port-forward, proxies."""

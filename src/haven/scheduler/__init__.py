"""Put Pods on nodes: a queue, one cycle per Pod over a snapshot in arrays, one file per plugin."""

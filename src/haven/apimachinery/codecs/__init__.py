"""Between bytes of every media type and trees: JSON, YAML, protobuf, and the choice among them."""

"""The OpenAPI documents: what there is (operations), version 2 in JSON and protobuf, version 3 by group."""

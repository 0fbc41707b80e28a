"""Durable keys and values with revisions, transactions and watches. Bytes only: nothing here knows Kubernetes."""

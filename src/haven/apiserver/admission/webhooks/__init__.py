"""Admission by webhooks: programs of users that change or refuse requests."""

"""Requests that ask the API server about identities and permissions, or for tokens; nothing of them is stored."""

"""The HTTP shell: sockets and TLS on one side, `Request` and `Response` on the other; it knows nothing of resources."""

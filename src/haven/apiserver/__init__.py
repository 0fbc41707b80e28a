"""The API server: request chain, authentication, authorization, admission, registry, watch cache, discovery."""

"""The API's types by group and version, with their defaults and validation."""

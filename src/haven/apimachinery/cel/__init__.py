"""The Common Expression Language with Kubernetes' libraries: compile, estimate, evaluate. Start at environment.py."""

"""PodSecurity: namespaces ask for a Pod Security Standard; see plugin.py."""

"""Control loops: every controller of kube-controller-manager, one file each, and the one runner that serves them."""

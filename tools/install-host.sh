#!/bin/sh
# Install what a node needs and this machine lacks. Only Debian and Ubuntu; elsewhere `haven doctor` names the packages.
set -eu

missing=""
need() { # program-or-file package
	if ! command -v "$1" >/dev/null 2>&1 && [ ! -e "$1" ]; then
		missing="$missing $2"
	fi
}

need containerd containerd
command -v runc >/dev/null 2>&1 || need crun crun
need /usr/lib/cni/bridge containernetworking-plugins
need nft nftables
need conntrack conntrack
need iptables iptables
need ip iproute2
need /bin/busybox busybox-static
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "install these packages (or what your distribution calls them):$missing" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "these packages are missing and need root to install: sudo apt-get install$missing" >&2
	exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# Word splitting is wanted: a list of packages.
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null

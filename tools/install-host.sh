#!/bin/sh
# Install what a node needs and this machine lacks; with "tests", also what only the tests need; with "bench", what the
# benchmark needs and nothing else.
# Only Debian and Ubuntu; elsewhere `haven doctor` names what is missing.
set -eu

missing=""
need() { # program-or-file package
	if ! PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 && [ ! -e "$1" ]; then
		missing="$missing $2"
	fi
}

if [ "${1:-}" = bench ]; then
	need wrk wrk
else
	need containerd containerd
	command -v runc >/dev/null 2>&1 || need crun crun
	need /usr/lib/cni/bridge containernetworking-plugins
	need nft nftables
	need conntrack conntrack
	need iptables iptables
	need ip iproute2
	need /bin/busybox busybox-static
	python=${PYTHON:-python3}
	if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
		echo "Haven needs Python 3.11 or newer and $python is older or missing: install one (on Ubuntu 22.04:" \
			"apt-get install python3.11 python3.11-venv), then say which: make up PYTHON=python3.11" >&2
		exit 1
	fi
	"$python" -c 'import ensurepip' 2>/dev/null || missing="$missing $(basename "$python")-venv"
fi
if [ "${1:-}" = tests ]; then
	need etcd etcd-server
fi

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "install these packages (or what your distribution calls them):$missing" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "these packages are missing and need root to install: sudo apt-get install$missing" >&2
	exit 1
fi

# Haven runs a containerd of its own and tests run an etcd of theirs: the packages' services shall neither be started
# now (policy-rc.d, as in Debian's own installer) nor at the next boot.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' HUP INT TERM
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
retry=Acquire::Retries=5
# Word splitting is wanted: a list of packages.
# shellcheck disable=SC2086
if ! { apt-get update -qq -o $retry && apt-get install -y -qq -o $retry --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 15 "$log" >&2
	echo "apt-get could not install$missing: mend what it says above, then try again" >&2
	exit 1
fi
rm -f "$log"
if [ -d /run/systemd/system ]; then
	for service in containerd etcd; do
		case "$missing " in
		*" $service "* | *" $service-server "*) systemctl disable --quiet "$service" 2>/dev/null || true ;;
		esac
	done
fi

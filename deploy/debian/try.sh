#!/bin/sh
# Installs /package.deb in a container, looks at what it does, removes it: run by `make release` and a test. Its last
# line says what was tried.
set -eu

if [ "${1:-}" = booted ]; then
	# degraded: something that has nothing to do with us failed
	for attempt in $(seq 300); do
		case $(systemctl is-system-running --wait 2>&1) in running | degraded) break ;; esac
		sleep 0.2
	done
	test -d /run/systemd/system
fi
if ! dpkg --install /package.deb >/tmp/install.log 2>&1; then
	# without a network this says what is missing
	(apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends /package.deb) \
		>>/tmp/install.log 2>&1 || { cat /tmp/install.log >&2; exit 1; }
fi
gateway --version
sensors-sim --help >/dev/null
getent passwd gateway | grep -q :/var/lib/gateway:
test "$(stat --format '%a %U %G' /etc/gateway/gateway.toml)" = "640 root gateway"
gateway check --config /etc/gateway/gateway.toml >/dev/null
# it starts with the machine
test -e /etc/systemd/system/multi-user.target.wants/gateway.service

# with systemd it runs already; without, as the unit starts it, apart from what only systemd can do
if [ -d /run/systemd/system ]; then
	how="its service ran under systemd"
	test "$(systemctl show --property User --value gateway)" = gateway
else
	how="it ran without systemd"
	install -d -o gateway -g gateway -m 0700 /var/lib/gateway
	setpriv --reuid gateway --regid gateway --init-groups env GATEWAY_ARCHIVE_FILE=/var/lib/gateway/archive.db \
		/usr/bin/gateway serve --config /etc/gateway/gateway.toml 2>/tmp/gateway.log &
	service=$!
fi
python3 - <<'END' || { [ -e /tmp/gateway.log ] || journalctl --unit gateway; cat /tmp/gateway.log; exit 1; } >&2
import sys, time, urllib.request
for attempt in range(600):
    try:
        page = urllib.request.urlopen("http://127.0.0.1:8000/", timeout=2).read()
        break
    except OSError:
        time.sleep(0.2)
else:
    sys.exit("the gateway does not answer")
assert b"<!doctype html>" in page.lower()
END
if [ -d /run/systemd/system ]; then
	# it did not fail before, and ends in order
	test "$(systemctl show --property NRestarts --value gateway)" = 0
	systemctl stop gateway
	test "$(systemctl show --property Result --value gateway)" = success
	systemctl start gateway
else
	kill "$service"
	wait "$service"
fi
test -e /var/lib/gateway/archive.db

echo "# mine" >>/etc/gateway/gateway.toml
dpkg --remove mqtt-browser-gateway >/dev/null 2>&1
test ! -e /usr/lib/mqtt-browser-gateway
grep -q '^# mine' /etc/gateway/gateway.toml
test -e /var/lib/gateway/archive.db
if [ -d /run/systemd/system ]; then
	test "$(systemctl show --property ActiveState --value gateway)" = inactive
fi
dpkg --purge mqtt-browser-gateway >/dev/null 2>&1
test ! -e /etc/gateway/gateway.toml
test ! -e /var/lib/gateway
echo "installed on Debian $(cat /etc/debian_version), $how, removed and purged"

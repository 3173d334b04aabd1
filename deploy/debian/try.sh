#!/bin/sh
# Installs /package.deb in a container, looks at what it does, removes it: run by `make release` and a test.
set -eu

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

# as the unit starts it, apart from what only systemd can do
install -d -o gateway -g gateway -m 0700 /var/lib/gateway
setpriv --reuid gateway --regid gateway --init-groups env GATEWAY_ARCHIVE_FILE=/var/lib/gateway/archive.db \
	/usr/bin/gateway serve --config /etc/gateway/gateway.toml 2>/tmp/gateway.log &
service=$!
python3 - <<'END'
import sys, time, urllib.request
for attempt in range(100):
    try:
        page = urllib.request.urlopen("http://127.0.0.1:8000/", timeout=2).read()
        break
    except OSError:
        time.sleep(0.2)
else:
    sys.exit("the gateway does not answer:\n" + open("/tmp/gateway.log").read())
assert b"<!doctype html>" in page.lower()
END
kill "$service"
wait "$service"
test -e /var/lib/gateway/archive.db

echo "# mine" >>/etc/gateway/gateway.toml
dpkg --remove mqtt-browser-gateway >/dev/null 2>&1
test ! -e /usr/lib/mqtt-browser-gateway
grep -q '^# mine' /etc/gateway/gateway.toml
test -e /var/lib/gateway/archive.db
dpkg --purge mqtt-browser-gateway >/dev/null 2>&1
test ! -e /etc/gateway/gateway.toml
test ! -e /var/lib/gateway
echo "installed, ran, removed and purged"

#!/bin/sh
# Makes a container a machine with systemd, as the trial of the Debian package wants it: control groups of its own below
# those that are there, and nothing else but them. `boot.sh clean` takes away what is left of them.
set -eu

umount --recursive /sys/fs/cgroup 2>/dev/null || umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
own=/sys/fs/cgroup/$TRIAL
if [ "${1:-}" = clean ]; then
	find "$own" -depth -type d -exec rmdir {} + 2>/dev/null || true
	exit 0
fi
mkdir "$own"
echo $$ >"$own/cgroup.procs"
exec unshare --cgroup sh -c 'umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
	exec env container=docker /lib/systemd/systemd'

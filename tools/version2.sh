#!/bin/sh
# version2.sh: the tests of control groups under version 2 alone, in a user-mode Linux: a machine that has its controllers
# in version 1 cannot lend them. The kernel is Debian's package user-mode-linux, its root is this machine's, read-only.
set -eu
cd "$(dirname "$0")/.."
here=$PWD
work=$(mktemp -d /var/tmp/version2.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 777 "$work"
(cd "$work" && apt-get download -q user-mode-linux && dpkg -x user-mode-linux_*.deb .) >"$work/apt.log" 2>&1 || {
    cat "$work/apt.log" >&2
    exit 1
}

cat >"$work/load.py" <<'END'
"""Load modules, and what they depend on first: there is no modprobe for another kernel's."""
import ctypes, os, sys

root, *names = sys.argv[1:]
needs = {one: rest.split() for one, _, rest in (line.partition(":") for line in open(f"{root}/modules.dep"))}
paths = {os.path.basename(one).partition(".ko")[0].replace("-", "_"): one for one in needs}
for name in names:
    for path in (*reversed(needs[paths[name]]), paths[name]):
        handle = os.open(f"{root}/{path}", os.O_RDONLY)
        ctypes.CDLL(None).syscall(313, handle, b"", 0)  # finit_module(2); one that is loaded is an error
        os.close(handle)
END

cat >"$work/init" <<END
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/mnt PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs work /mnt
mount -t cgroup2 cgroup /sys/fs/cgroup
echo "+cpu +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
cd $here
modules=$work/usr/lib/uml/modules/\$(uname -r)
.venv/bin/python $work/load.py \$modules overlay veth bridge br_netfilter iptable_nat iptable_filter iptable_raw \
    ip6table_nat ip6table_filter ip6table_raw xt_addrtype xt_conntrack xt_MASQUERADE xt_nat xt_tcpudp xt_comment
ip link set lo up
# This kernel has no nftables of IPv4: the other iptables is used.
cp -a /etc/alternatives /mnt/alternatives
for name in "" -save -restore; do
    ln -sf /usr/sbin/iptables-legacy\$name /mnt/alternatives/iptables\$name
    ln -sf /usr/sbin/ip6tables-legacy\$name /mnt/alternatives/ip6tables\$name
done
mount --bind /mnt/alternatives /etc/alternatives
echo "Linux \$(uname -r), control groups of version 2: \$(cat /sys/fs/cgroup/cgroup.controllers)"
.venv/bin/python -m pytest -q --color=no -p no:cacheprovider -rs tests/runtime/test_groups.py
poweroff -f
END
chmod 755 "$work/init"
"$work/usr/bin/linux.uml" mem=2G root=/dev/root rootfstype=hostfs rootflags=/ ro init="$work/init" quiet \
    con=null con0=null,fd:1 con1=null umid=version2 uml_dir="$work/" </dev/null 2>&1 | tee "$work/said"
grep -Eq '^[0-9]+ passed' "$work/said"

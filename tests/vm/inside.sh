# What a virtual machine of tools/vm.py runs. /checkout is read-only; what tests write goes to the machine's own disk.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1 COLUMNS=120 INCLAVARE_VM=1
echo "vm: Linux $(uname -r), $(systemctl --version | head -n 1), /sys/fs/cgroup is $(stat -f -c %T /sys/fs/cgroup)"
cd /checkout || exit 1
eval "set -- $(cat vm.arguments)"
exec python3 -m pytest -q --color=no -p no:cacheprovider -o timeout=1200 "$@" # the processor is emulated

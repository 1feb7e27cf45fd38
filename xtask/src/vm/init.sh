#!/bin/busybox sh
# The guest's first program. Makes the host's files its root, with whatever is written kept in memory, and hands
# over to the script in the shared directory.
/bin/busybox --install -s /bin
PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1 </dev/null
for module in /modules/*; do insmod "$module"; done
p9=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $p9,ro,cache=loose host /lower
mount -t tmpfs -o size=75% upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /joined
for directory in proc sys dev; do mount --move /$directory /joined/$directory; done
cd /joined
mount -t tmpfs run run
mkdir -p run/lb-vm run/lock dev/pts dev/shm var/lib/lb lib/modules
mount -t 9p -o $p9,cache=none share run/lb-vm
mount -t devpts pts dev/pts
mount -t tmpfs shm dev/shm
# What the host remembers is not the guest's.
mount -t tmpfs state var/lib/lb
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs modules lib/modules
exec switch_root /joined /bin/sh /run/lb-vm/start

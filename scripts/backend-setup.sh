#!/bin/sh
# Sets a backend up for direct server return: the service address on lo, silence about it on the segment.
set -eu

usage() {
    cat <<'END'
Sets a backend up for direct server return (every forwarding), or takes that back.

Usage: backend-setup.sh set  IFACE ADDRESS…   the service addresses that this backend shall serve
       backend-setup.sh undo IFACE            everything `set` did on IFACE
       backend-setup.sh show IFACE            how things are, changing nothing

`set` puts each ADDRESS on lo with /32 (IPv6: /128) and changes three settings of IFACE:
  arp_ignore=1    answer ARP only for addresses of IFACE itself: the balancer answers for the service's
  arp_announce=2  never name a service address as the sender of an ARP request
  rp_filter=2     accept packets that are answered through another interface (loose, RFC 3704)
Values that already do the job are left alone. `set` may be repeated, also with more addresses. `undo` restores
what was there before. Nothing survives a reboot: run it from a unit or the network configuration.

For forwarding: ipip, gre and gue the backend also needs a decapsulator, for example
  lb decap IFACE --vip ADDRESS --from BALANCER --clamp-mss

Examples:
  backend-setup.sh set eth0 203.0.113.10
  backend-setup.sh undo eth0
END
}

fail() {
    echo "backend-setup.sh: $*" >&2
    exit "${code:-1}"
}

bad_input() {
    code=2
    fail "$* (--help explains)"
}

read_setting() {
    cat "/proc/sys/net/ipv4/conf/$1/$2"
}

family() {
    case $1 in *:*) echo 6 ;; *) echo 4 ;; esac
}

# The address alone, as a prefix.
host() {
    case $1 in *:*) echo "$1/128" ;; *) echo "$1/32" ;; esac
}

has_address() {
    [ -n "$(ip "-$(family "$1")" -oneline address show dev lo to "$(host "$1")")" ]
}

# What the kernel acts on: the larger of `all` and the interface's own value.
effective() {
    all=$(read_setting all "$1")
    own=$(read_setting "$iface" "$1")
    if [ "$all" -gt "$own" ]; then echo "$all"; else echo "$own"; fi
}

# Sets IFACE's value, unless what the kernel acts on is already one of those that do.
setting() {
    name=$1 wanted=$2 enough=$3
    case " $enough " in *" $(effective "$name") "*) return ;; esac
    echo "setting $name $(read_setting "$iface" "$name")" >>"$state"
    echo "$wanted" >"/proc/sys/net/ipv4/conf/$iface/$name"
    echo "$iface: $name=$wanted"
}

set_up() {
    [ $# -gt 0 ] || bad_input "set needs at least one ADDRESS"
    for address in "$@"; do
        ip "-$(family "$address")" route get "$address" >/dev/null 2>&1 || case $? in
            1) bad_input "$address is no IP address" ;; # 2: merely unreachable
        esac
    done
    mkdir -p "$directory"
    touch "$state"
    # Silence first: from the moment lo has the address, the host would answer ARP for it. IPv6 needs none: neighbour
    # solicitations are answered only for addresses of the interface they arrive on.
    setting arp_ignore 1 "1 2 8"
    setting arp_announce 2 "2"
    setting rp_filter 2 "0 2"
    for address in "$@"; do
        has_address "$address" && continue
        ip address add "$(host "$address")" dev lo || fail "cannot put $address on lo"
        echo "address $address" >>"$state"
        echo "lo: $(host "$address")"
    done
    echo "backend ready on $iface"
}

undo() {
    if [ ! -e "$state" ]; then
        echo "nothing to undo on $iface"
        return
    fi
    # Addresses first, for the same reason.
    sed -n 's/^address //p' "$state" | while read -r address; do
        has_address "$address" && ip address del "$(host "$address")" dev lo
        echo "lo: $(host "$address") removed"
    done
    sed -n 's/^setting //p' "$state" | while read -r name value; do
        echo "$value" >"/proc/sys/net/ipv4/conf/$iface/$name"
        echo "$iface: $name=$value"
    done
    rm -f "$state"
    rmdir -p "$directory" 2>/dev/null || true # others may have theirs there
}

show() {
    for name in arp_ignore arp_announce rp_filter; do
        echo "$iface: $name=$(read_setting "$iface" "$name"), in effect $(effective "$name")"
    done
    ip -oneline address show dev lo | awk '{ print "lo: " $4 }'
    if [ -e "$state" ]; then echo "set up by this script"; else echo "not set up by this script"; fi
}

case ${1-} in
    -h | --help | help) usage && exit 0 ;;
    set | undo | show) ;;
    '') usage >&2 && exit 2 ;;
    *) bad_input "no command $1" ;;
esac
command=$1
[ $# -ge 2 ] || bad_input "$command needs an IFACE"
iface=$2
shift 2

# One file per network namespace and interface.
directory=/run/lb-backend/$(stat -Lc %i /proc/self/ns/net)
state=$directory/$iface
case $iface in */* | .*) bad_input "$iface is no interface name" ;; esac
[ -d "/proc/sys/net/ipv4/conf/$iface" ] || bad_input "there is no interface $iface here"
if [ "$command" != show ] && [ "$(id -u)" != 0 ]; then fail "root is needed"; fi

case $command in
    set) set_up "$@" ;;
    undo) undo ;;
    show) show ;;
esac

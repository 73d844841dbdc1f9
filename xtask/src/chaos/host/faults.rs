//! What is done to a node.

/// How a fault is known to have been seen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    /// Nothing is to be said of it: no warning comes.
    Silence,
    /// These words are in the log.
    Log(&'static str),
    /// The device is served.
    Device(&'static str),
    /// A NodePort answers at this address.
    Address(&'static str),
    /// `kproxy status` has a problem of these words until it is undone.
    Problem(&'static str),
}

/// What it does to traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Traffic {
    /// Nothing.
    GoesOn,
    /// It stops until the fault is undone; what stands goes on then.
    Stops,
    /// The same, and what stands may end: the node has lost an address, and got it again.
    Breaks,
}

/// One thing that is done, as a shell script on the node. `$BPFFS`: where kproxy's pins are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) act: &'static str,
    pub(super) seen: Seen,
    pub(super) undo: &'static str,
    pub(super) traffic: Traffic,
}

/// Keeps routes and IPv6 addresses of eth0 over what follows, up to [`RESTORE`].
macro_rules! keeping {
    ($script:literal) => {
        concat!(
            "echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down; \
             ip -4 route | grep via > $KEPT.4; ip -6 route | grep via > $KEPT.6; ",
            $script
        )
    };
}

/// Whoever set the routes sets them again.
macro_rules! restoring {
    ($script:literal) => {
        concat!(
            $script,
            "; for family in 4 6; do while read route; do ip -$family route replace $route; \
             done < $KEPT.$family; rm $KEPT.$family; done"
        )
    };
}

const NOTHING: &str = ":";

/// All of them, in the order in which they are done.
pub(super) const ALL: &[Fault] = &[
    Fault {
        what: "20 pod devices vanish while they are attached",
        act: "for i in $(seq 20); do ip link add kpv$i type veth peer name kpw$i; \
              ip link set kpv$i master cni0 up; [ $((i % 4)) = 0 ] && sleep 0.06; \
              ip link delete kpv$i; done",
        seen: Seen::Silence,
        undo: NOTHING,
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "a new uplink",
        act: "ip link add kpx0 type vxlan id 7 dstport 4799; ip address add 10.99.0.1/24 dev kpx0; \
              ip link set kpx0 up",
        seen: Seen::Device("kpx0"),
        undo: "ip link delete kpx0",
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "a new address",
        act: "ip address add 172.18.0.99/24 dev eth0",
        seen: Seen::Address("172.18.0.99"),
        undo: "ip address delete 172.18.0.99/24 dev eth0",
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "routes come and go",
        act: "for i in $(seq 50); do ip route add blackhole 198.51.100.$i/32; done",
        seen: Seen::Silence,
        undo: "for i in $(seq 50); do ip route delete blackhole 198.51.100.$i/32; done",
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "net.ipv4.ip_local_port_range",
        act: "echo 10000 60999 > /proc/sys/net/ipv4/ip_local_port_range",
        seen: Seen::Log("leave from ports 1024-9999"),
        undo: "echo 32768 60999 > /proc/sys/net/ipv4/ip_local_port_range",
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "net.netfilter.nf_conntrack_udp_timeout",
        act: "echo 77 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout",
        seen: Seen::Log("the times that flows are kept for have changed"),
        undo: "echo 30 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout",
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "strict rp_filter",
        act: "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $file; done",
        seen: Seen::Silence,
        undo: NOTHING,
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "nft flush ruleset",
        act: "nft flush ruleset",
        seen: Seen::Silence,
        undo: NOTHING,
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "tc qdisc del clsact",
        act: "tc qdisc add dev eth0 clsact 2>/dev/null; tc qdisc del dev eth0 clsact",
        seen: Seen::Silence,
        undo: NOTHING,
        // The kernel itself sends nothing while it does that, with no program attached either: it deactivates the
        // device for some milliseconds (net/sched/sch_api.c, qdisc_graft), and a datagram of then is lost.
        traffic: Traffic::Stops,
    },
    Fault {
        what: "pins of maps and programs removed",
        act: "rm -r $BPFFS/kproxy/v*/maps $BPFFS/kproxy/v*/programs",
        seen: Seen::Log("pins were taken away by somebody; made again"),
        undo: NOTHING,
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "pins of links removed",
        act: "rm $BPFFS/kproxy/v*/links/*",
        seen: Seen::Log("pins were taken away by somebody; made again"),
        undo: NOTHING,
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "the BPF file system unmounted",
        act: "umount --lazy $BPFFS",
        seen: Seen::Log("pins were taken away by somebody; made again"),
        undo: NOTHING,
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "the uplink renamed",
        act: "ip link set eth0 name wan0",
        seen: Seen::Device("wan0"),
        undo: "ip link set wan0 name eth0",
        traffic: Traffic::GoesOn,
    },
    Fault {
        what: "net.ipv4.ip_forward switched off",
        act: "echo 0 > /proc/sys/net/ipv4/ip_forward",
        seen: Seen::Problem("net.ipv4.ip_forward"),
        undo: "echo 1 > /proc/sys/net/ipv4/ip_forward",
        traffic: Traffic::Stops,
    },
    Fault {
        what: "net.ipv6.conf.all.forwarding switched off",
        act: keeping!("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"),
        seen: Seen::Problem("net.ipv6.conf.all.forwarding"),
        undo: restoring!("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"),
        traffic: Traffic::Stops,
    },
    Fault {
        what: "the uplink down for two seconds",
        act: keeping!("ip link set eth0 down; sleep 2"),
        seen: Seen::Silence,
        undo: restoring!("ip link set eth0 up"),
        traffic: Traffic::Stops,
    },
    Fault {
        what: "the uplink down and renamed",
        act: keeping!(
            "ip link set eth0 down; ip link set eth0 name wan0; sleep 1; ip link set wan0 name eth0"
        ),
        seen: Seen::Silence,
        undo: restoring!("ip link set eth0 up"),
        traffic: Traffic::Stops,
    },
    Fault {
        what: "the node's address taken and given back",
        act: keeping!(
            "ip -4 -o address show dev eth0 scope global | awk '{print $4}' > $KEPT.ip; \
                       ip address delete $(head -1 $KEPT.ip) dev eth0; sleep 1"
        ),
        seen: Seen::Silence,
        undo: restoring!("ip address add $(head -1 $KEPT.ip) dev eth0; rm $KEPT.ip"),
        traffic: Traffic::Breaks,
    },
];

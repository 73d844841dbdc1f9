# What this kernel has, by the names in its BTF: `fact NAME yes` or `no`.
fact() {
    name=$1
    shift
    if "$@" > /dev/null 2>&1; then echo "fact $name yes"; else echo "fact $name no"; fi
}
btf=/sys/kernel/btf/vmlinux
knows() { grep -aq "$1" $btf; }
lacks() { ! knows "$1"; }
fact btf test -s $btf
fact coarse-clock knows BPF_FUNC_ktime_get_coarse_ns
fact memory-of-cgroup lacks bpf_map_memory
fact route-mtu knows mtu_result
fact verified-instructions knows verified_insns
fact set-retval knows BPF_FUNC_set_retval
fact mptcp-helper knows BPF_FUNC_skc_to_mptcp_sock
fact mptcp test -e /proc/sys/net/mptcp
fact skip-neighbour knows BPF_FIB_LOOKUP_SKIP_NEIGH
fact tcx knows BPF_TCX_INGRESS
fact sctp modprobe sctp

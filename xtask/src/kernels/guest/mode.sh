# mode.sh WHOSE WHO [ARGUMENT…]: runs kproxy once with --socket-lb WHOSE and --snat WHO on a node with an
# uplink and a pod, and prints its status (JSON) between two marks, then its log.
lb=$1 snat=$2
shift 2
kproxy=/guest/target/debug/kproxy

make_node() {
    ip netns add out
    ip link add eth0 type veth peer name eth0 netns out
    ip -n out link set eth0 up
    ip addr add 192.0.2.1/24 dev eth0
    ip addr add 2001:db8::1/64 dev eth0 nodad
    ip link set eth0 up
    ip route add default via 192.0.2.254
    ip link add cni0 type bridge
    ip addr add 10.244.1.1/24 dev cni0
    ip link set cni0 up
    ip netns add pod
    ip link add veth0 type veth peer name eth0 netns pod
    ip link set veth0 master cni0 up
    ip -n pod addr add 10.244.1.5/24 dev eth0
    ip -n pod link set eth0 up
    ip -n pod route add default via 10.244.1.1
}
[ -e /run/netns/pod ] || make_node

log=/tmp/kproxy.log
# The child empties it too late: what the last mode has logged would count.
: > $log
$kproxy run --manifests /guest/objects --hostname-override n1 --cluster-cidr 10.244.0.0/16 \
    --cgroup-root /sys/fs/cgroup --socket-lb "$lb" --snat "$snat" "$@" > $log 2>&1 &
pid=$!
while kill -0 $pid 2> /dev/null && ! grep -q "in sync" $log; do sleep 0.2; done
echo "@status"
$kproxy status -o json
echo "@log"
kill $pid
wait $pid
code=$?
cat $log
$kproxy cleanup && exit $code

package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// lookSockets looks at the kernel's limits on connections.
func lookSockets(m *machine) []Finding {
	findings := []Finding{lookBacklog(m)}
	findings = append(findings, lookPortRange(m)...)
	return append(findings, lookSendBuffer(m)...)
}

// lookSendBuffer has something to say only where buffers cannot grow.
func lookSendBuffer(m *machine) []Finding {
	const want = 1 << 20
	text, _ := m.text("/proc/sys/net/ipv4/tcp_wmem")
	f := strings.Fields(text) // least, default, most
	if len(f) != 3 {
		return nil
	}
	if most, err := strconv.ParseInt(f[2], 10, 64); err == nil && most < want {
		return []Finding{note("tcp_wmem", size(most)+" at most", "one pull's answer of many messages takes several turns on long lines",
			sysctl("net.ipv4.tcp_wmem", "'4096 65536 4194304'"))}
	}
	return nil
}

func lookBacklog(m *machine) Finding {
	const name = "accept queue"
	accept, found := m.number("/proc/sys/net/core/somaxconn")
	if !found {
		return unseen(name, "/proc/sys/net/core/somaxconn")
	}
	syn, synFound := m.number("/proc/sys/net/ipv4/tcp_max_syn_backlog")
	text := fmt.Sprintf("somaxconn %d", accept)
	about := fmt.Sprintf("serverSocketBacklog=%d", m.Backlog)
	switch {
	case accept < int64(m.Backlog):
		return warning(name, text, "cuts "+about+": when all clients come back at once, some wait a second for their second try", sysctl("net.core.somaxconn", max(int64(m.Backlog), 4096)))
	case synFound && syn < int64(m.Backlog):
		return note(name, fmt.Sprintf("tcp_max_syn_backlog %d", syn), "below "+about+": a rush of new connections is answered with cookies", sysctl("net.ipv4.tcp_max_syn_backlog", max(int64(m.Backlog), 4096)))
	}
	return ok(name, text, "room for "+about)
}

// lookPortRange: an outgoing connection may be given a port of this range, also the one that the broker is about to listen on.
func lookPortRange(m *machine) []Finding {
	const name = "port range"
	text, found := m.text("/proc/sys/net/ipv4/ip_local_port_range")
	f := strings.Fields(text)
	if !found || len(f) != 2 {
		return []Finding{unseen(name, "/proc/sys/net/ipv4/ip_local_port_range")}
	}
	from, err1 := strconv.Atoi(f[0])
	to, err2 := strconv.Atoi(f[1])
	if err1 != nil || err2 != nil {
		return []Finding{unseen(name, "/proc/sys/net/ipv4/ip_local_port_range")}
	}
	reserved, _ := m.text("/proc/sys/net/ipv4/ip_local_reserved_ports")
	var inside []string
	for _, p := range m.Ports {
		if p.Number >= from && p.Number <= to && !slices.Contains(portList(reserved), p.Number) {
			inside = append(inside, strconv.Itoa(p.Number))
		}
	}
	text = fmt.Sprintf("%d-%d", from, to)
	if len(inside) > 0 {
		all := strings.Join(inside, ",")
		if reserved != "" {
			all = reserved + "," + all
		}
		return []Finding{warning(name, text, "holds "+strings.Join(inside, ", ")+": an outgoing connection may have that port when the broker starts",
			sysctl("net.ipv4.ip_local_reserved_ports", all))}
	}
	return []Finding{ok(name, text, "outgoing connections do not take the broker's ports")}
}

// portList has the form of a list of processors, and no more numbers than there are ports.
func portList(list string) (ports []int) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for ; from <= to && len(ports) <= 1<<16; from++ {
			ports = append(ports, int(from))
		}
	}
	return ports
}

// bridges start the names of interfaces that other machines do not reach.
var bridges = []string{"docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "podman", "lxc", "vmnet", "vboxnet"}

// dockerNet is the network of Docker's default bridge.
var dockerNet = netip.MustParsePrefix("172.17.0.0/16")

// lookAdvertised looks at the address that clients are told. It is the one setting that a broker cannot try by itself, and clients
// that got a wrong one fail with "connect to <address> failed" long after the broker has started in good order.
func lookAdvertised(m *machine) []Finding {
	const name = "advertised address"
	given := "brokerIP1=" + m.Advertised
	if m.AdvertisedFound {
		given = m.Advertised + ", found"
	}
	interfaces, err := m.interfaces()
	if err != nil {
		return []Finding{note(name, given, "this system's interfaces cannot be listed: "+err.Error(), "brokerIP1=ADDRESS   # in broker.conf, the one that clients reach")}
	}
	own, on := usable(interfaces)
	better := "ADDRESS"
	if len(own) > 0 {
		better = own[0].String()
	}
	cures := []string{"brokerIP1=" + better + "   # in broker.conf, the address that clients reach"}
	ip, err := netip.ParseAddr(m.Advertised)
	ip = ip.Unmap()
	switch {
	case err != nil:
		return []Finding{failure(name, given, "is no address: records carry it, so a name will not do, and the broker does not start", cures...)}
	case ip.IsUnspecified() || ip.IsMulticast():
		return []Finding{warning(name, given, "no client can connect to it", cures...)}
	case ip.IsLoopback():
		return []Finding{warning(name, given, "clients on other machines connect to themselves; in order for a trial on one machine", cures...)}
	case ip.IsLinkLocalUnicast():
		return []Finding{warning(name, given, "link-local: reached only from the same wire, and with a zone", cures...)}
	case dockerNet.Contains(ip):
		return []Finding{warning(name, given, "Docker's own network: only containers of this host reach it",
			"docker run -p 10909-10912:10909-10912 ... --brokerIP1=ADDRESS   # of the host; or --network host")}
	case isBridge(on[ip]):
		return []Finding{warning(name, given+" on "+on[ip], "a bridge of containers or virtual machines: other machines do not reach it", cures...)}
	}
	if bound, err := netip.ParseAddr(m.BindAddress); err == nil && bound.IsLoopback() {
		return []Finding{warning(name, given+", bound to "+m.BindAddress, "the broker listens on loopback only: nobody reaches the address that it tells", "bindAddress=0.0.0.0   # in broker.conf")}
	}
	if on[ip] == "" {
		return []Finding{note(name, given, "not of this machine: right behind NAT or a load balancer that forwards the same port, else wrong",
			fmt.Sprintf("nc -vz %s %d   # from a client's machine", ip, m.clientPort()), cures[0])}
	}
	if m.AdvertisedFound && len(own) > 1 {
		return []Finding{note(name, given, fmt.Sprintf("one of %d addresses that it could be: after a change of interfaces it may be another", len(own)), "brokerIP1="+m.Advertised+"   # in broker.conf, if clients reach this one")}
	}
	return []Finding{ok(name, given+" on "+on[ip], "clients are told an address of this machine")}
}

func (m *machine) clientPort() int {
	for _, p := range m.Ports {
		if p.Property == "listenPort" {
			return p.Number
		}
	}
	return 10911
}

// usable lists the IPv4 addresses that other machines may reach, and says on which interface each address is.
func usable(interfaces []Interface) (own []netip.Addr, on map[netip.Addr]string) {
	on = make(map[netip.Addr]string)
	for _, i := range interfaces {
		for _, a := range i.Addrs {
			on[a] = i.Name
			if a.Is4() && a.IsGlobalUnicast() && !isBridge(i.Name) && !dockerNet.Contains(a) {
				own = append(own, a)
			}
		}
	}
	return own, on
}

func isBridge(name string) bool {
	return slices.ContainsFunc(bridges, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// lookPorts tries each port, and names who has it.
func lookPorts(m *machine) (findings []Finding) {
	for _, p := range m.Ports {
		if p.Number > 0 {
			findings = append(findings, m.lookPort(p))
		}
	}
	return findings
}

func (m *machine) lookPort(p Port) Finding {
	name := "port " + strconv.Itoa(p.Number)
	err := m.listen(net.JoinHostPort(p.Bind, strconv.Itoa(p.Number)))
	if err == nil {
		return ok(name, "free", p.Property)
	}
	if errors.Is(err, fs.ErrPermission) {
		return m.badPort(p, name, "not allowed", "ports below 1024 are for root", "sysctl -w net.ipv4.ip_unprivileged_port_start="+strconv.Itoa(p.Number), "or in broker.conf: another "+p.Property)
	}
	owner, known := m.listener(p.Number)
	switch {
	case known && strings.HasPrefix(owner, "ringmq "):
		return note(name, owner+" has it", p.Property+": a broker or name server runs here already; a second one needs ports of its own", "in its configuration: another "+p.Property)
	case known:
		return m.badPort(p, name, owner+" has it", p.Property+" is taken", "ss -ltnp 'sport = :"+strconv.Itoa(p.Number)+"'   # who has it, to end that", "or in the configuration: another "+p.Property)
	}
	var reason *os.SyscallError
	text := err.Error()
	if errors.As(err, &reason) {
		text = reason.Err.Error()
	}
	return m.badPort(p, name, text, p.Property+" cannot be bound at "+p.Bind, "ss -ltnp 'sport = :"+strconv.Itoa(p.Number)+"'   # who has it", "or in the configuration: another "+p.Property+" or bindAddress")
}

// badPort is a failure where the broker needs the port.
func (m *machine) badPort(p Port, name, found, meaning string, cures ...string) Finding {
	if p.Required {
		return failure(name, found, meaning+": the broker does not start", cures...)
	}
	return note(name, found, meaning+": matters only to what is meant to run here besides the broker", cures...)
}

// listener is "name (process)" of whoever listens on a port; false where nobody is seen to.
func (m *machine) listener(port int) (string, bool) {
	var inode string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if inode = m.listeningInode(table, port); inode != "" {
			break
		}
	}
	if inode == "" {
		return "", false
	}
	for _, link := range m.glob("/proc/[0-9]*/fd/[0-9]*") {
		if target, err := fs.ReadLink(m.tree, link); err == nil && target == "socket:["+inode+"]" {
			pid := path.Base(path.Dir(path.Dir(link)))
			comm, _ := m.text("/proc/" + pid + "/comm")
			return comm + " (process " + pid + ")", true
		}
	}
	return "a process of another user", true
}

// listeningInode looks through a table of sockets: local address and port in hexadecimal, state 0A, inode in the tenth column.
func (m *machine) listeningInode(table string, port int) string {
	text, _ := m.text(table)
	want := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], want) {
			return f[9]
		}
	}
	return ""
}

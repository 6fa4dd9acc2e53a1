package doctor

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSockets(t *testing.T) {
	set := func(name, value string) func(*patient) {
		return func(p *patient) { p.set("proc/sys/net/"+name, value) }
	}
	diagnose(t, lookSockets, []outcome{
		{"enough", nil, "accept queue", OK, "somaxconn 4096", ""},
		{"cuts the backlog", set("core/somaxconn", "128"), "accept queue", Warning, "somaxconn 128", "net.core.somaxconn=4096"},
		{"a larger backlog wants more", func(p *patient) { p.Backlog = 8192 }, "accept queue", Warning, "4096", "net.core.somaxconn=8192"},
		{"few half-open ones", set("ipv4/tcp_max_syn_backlog", "512"), "accept queue", Note, "tcp_max_syn_backlog 512", "tcp_max_syn_backlog"},
		{"not shown", func(p *patient) { p.remove("proc/sys/net") }, "accept queue", Note, "not seen", ""},
		{"ports apart", nil, "port range", OK, "32768-60999", ""},
		{"ports inside", set("ipv4/ip_local_port_range", "1024 65535"), "port range", Warning, "1024-65535", "ip_local_reserved_ports=10911,10912"},
		{"ports inside, reserved", func(p *patient) {
			set("ipv4/ip_local_port_range", "1024 65535")(p)
			set("ipv4/ip_local_reserved_ports", "80,10911-10912")(p)
		}, "port range", OK, "", ""},
		{"ports inside, some reserved", func(p *patient) {
			set("ipv4/ip_local_port_range", "1024 65535")(p)
			set("ipv4/ip_local_reserved_ports", "10911")(p)
		}, "port range", Warning, "", "ip_local_reserved_ports=10911,10912"},
		{"no range", set("ipv4/ip_local_port_range", "some ports"), "port range", Note, "not seen", ""},
		{"small buffers", set("ipv4/tcp_wmem", "4096 16384 262144"), "tcp_wmem", Note, "256 KiB", "tcp_wmem"},
	})
	p := healthy(t)
	for _, text := range []string{"", "x", "1 2", "a b c"} {
		p.set("proc/sys/net/ipv4/tcp_wmem", text)
		require.Len(t, lookSockets(p.machine), 2, "nothing to say about %q", text)
	}
}

func TestAdvertised(t *testing.T) {
	told := func(address string) func(*patient) {
		return func(p *patient) { p.Advertised = address }
	}
	diagnose(t, lookAdvertised, []outcome{
		{"an address of this machine", nil, "advertised address", OK, "brokerIP1=192.0.2.2 on eth0", ""},
		{"found by itself", func(p *patient) { p.AdvertisedFound = true }, "advertised address", OK, "192.0.2.2, found on eth0", ""},
		{"one of several", func(p *patient) {
			p.AdvertisedFound = true
			p.interfaces = func() ([]Interface, error) {
				return []Interface{addresses("eth0", "192.0.2.2"), addresses("eth1", "198.51.100.7")}, nil
			}
		}, "advertised address", Note, "found", "brokerIP1=192.0.2.2"},
		{"a name", told("broker.example.org"), "advertised address", Failure, "broker.example.org", "brokerIP1=192.0.2.2"},
		{"nothing", told(""), "advertised address", Failure, "brokerIP1=", "brokerIP1=192.0.2.2"},
		{"every address", told("0.0.0.0"), "advertised address", Warning, "0.0.0.0", "brokerIP1=192.0.2.2"},
		{"multicast", told("224.0.0.1"), "advertised address", Warning, "224.0.0.1", "brokerIP1=192.0.2.2"},
		{"loopback", told("127.0.0.1"), "advertised address", Warning, "127.0.0.1", "brokerIP1=192.0.2.2"},
		{"loopback, mapped into IPv6", told("::ffff:127.0.0.1"), "advertised address", Warning, "127.0.0.1", "brokerIP1=192.0.2.2"},
		{"link-local", told("169.254.3.4"), "advertised address", Warning, "169.254.3.4", "brokerIP1="},
		{"docker's bridge", told("172.17.0.1"), "advertised address", Warning, "172.17.0.1", "--network host"},
		{"inside a container", func(p *patient) {
			told("172.17.0.3")(p)
			p.interfaces = func() ([]Interface, error) { return []Interface{addresses("eth0", "172.17.0.3")}, nil }
		}, "advertised address", Warning, "172.17.0.3", "-p 10909-10912:10909-10912"},
		{"another bridge", func(p *patient) {
			told("10.88.0.1")(p)
			p.interfaces = func() ([]Interface, error) { return []Interface{addresses("podman0", "10.88.0.1")}, nil }
		}, "advertised address", Warning, "on podman0", "brokerIP1=ADDRESS"},
		{"not of this machine", told("203.0.113.9"), "advertised address", Note, "203.0.113.9", "nc -vz 203.0.113.9 10911"},
		{"listening on loopback only", func(p *patient) { p.BindAddress = "127.0.0.1" }, "advertised address", Warning, "bound to 127.0.0.1", "bindAddress=0.0.0.0"},
		{"no interfaces to be had", func(p *patient) {
			p.interfaces = func() ([]Interface, error) { return nil, errors.New("netlink: not permitted") }
		}, "advertised address", Note, "192.0.2.2", "brokerIP1="},
	})
}

func TestPorts(t *testing.T) {
	busy := func(addr string, err error) func(*patient) {
		return func(p *patient) { p.busy[addr] = err }
	}
	inUse := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	// heldBy shows process 4242 listening on 10911, which is 2A9F.
	heldBy := func(program, table string) func(*patient) {
		return func(p *patient) {
			busy("0.0.0.0:10911", inUse)(p)
			p.set("proc/net/"+table, "  sl  local_address rem_address   st\n"+
				"   0: 0100007F:2A9F 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 777 1\n"+
				"   1: 00000000:2A9F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 888 1\n")
			p.set("proc/4242/comm", program+"\n")
			p.link("socket:[888]", "proc/4242/fd/7")
			p.link("socket:[777]", "proc/77/fd/7")
		}
	}
	diagnose(t, lookPorts, []outcome{
		{"free", nil, "port 10911", OK, "free", ""},
		{"taken by a program", heldBy("java", "tcp"), "port 10911", Failure, "java (process 4242)", "ss -ltnp 'sport = :10911'"},
		{"a program with an odd name", heldBy("\x1b[2Jjava", "tcp"), "port 10911", Failure, ".[2Jjava", "ss"},
		{"taken at an IPv6 address", heldBy("java", "tcp6"), "port 10911", Failure, "java (process 4242)", "ss"},
		{"taken by a broker that runs here", heldBy("ringmq", "tcp"), "port 10911", Note, "ringmq (process 4242)", "another listenPort"},
		{"taken by somebody else's program", func(p *patient) { heldBy("java", "tcp")(p); p.remove("proc/4242") }, "port 10911", Failure, "another user", "ss"},
		{"taken by nobody that is seen", busy("0.0.0.0:10911", inUse), "port 10911", Failure, "address already in use", "bindAddress"},
		{"a port that the broker does not need", busy("0.0.0.0:10912", inUse), "port 10912", Note, "address already in use", "another haListenPort"},
		{"not allowed", busy("0.0.0.0:10911", syscall.EACCES), "port 10911", Failure, "not allowed", "ip_unprivileged_port_start=10911"},
		{"another error", busy("0.0.0.0:10911", errProbe), "port 10911", Failure, "input/output error", ""},
	})
	require.Len(t, lookPorts(healthy(t).machine), 2, "a port below 1 is none")
}

// The way that is used outside of tests.
func TestListenOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.Error(t, listenOnce(addr))
	port := l.Addr().(*net.TCPAddr).Port

	// This very process is found, too.
	m := newMachine(t.Context(), Options{StoreDir: t.TempDir()})
	if owner, known := m.listener(port); m.linux && known {
		require.Contains(t, owner, "(process "+strconv.Itoa(os.Getpid())+")")
	}
	require.NoError(t, l.Close())
}

func TestUsable(t *testing.T) {
	own, on := usable([]Interface{addresses("eth0", "192.0.2.2", "fd00::2"), addresses("br-12", "172.20.0.1"), addresses("eth1", "172.17.0.3")})
	require.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.2")}, own)
	require.Equal(t, "br-12", on[netip.MustParseAddr("172.20.0.1")])
}

package config

import (
	"net"
	"strings"
)

// candidate is one address of this machine that clients might be told.
type candidate struct {
	ip      net.IP
	bridged bool // on a bridge of containers or virtual machines, which other machines do not reach
}

// bridgePrefixes start the names of such interfaces.
var bridgePrefixes = []string{"docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "podman", "lxc", "vmnet", "vboxnet"}

// localAddress is the address of this machine that clients are told when brokerIP1 is not set. It asks the
// interfaces only, never a resolver: a wrong guess is mended by brokerIP1, a slow start is not.
func localAddress() string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "127.0.0.1"
	}
	var found []candidate
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				found = append(found, candidate{ip: n.IP, bridged: isBridge(i.Name)})
			}
		}
	}
	return chooseAddress(found)
}

func isBridge(name string) bool {
	for _, p := range bridgePrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// chooseAddress prefers IPv4 to IPv6 and real interfaces to bridges, and takes the first of equals.
func chooseAddress(found []candidate) string {
	best, bestRank := "127.0.0.1", 0
	for _, c := range found {
		if !c.ip.IsGlobalUnicast() {
			continue
		}
		rank := 1
		if !c.bridged {
			rank += 2
		}
		if c.ip.To4() != nil {
			rank++
		}
		if rank > bestRank {
			best, bestRank = c.ip.String(), rank
		}
	}
	return best
}

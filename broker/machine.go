package broker

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"runtime"
	"strconv"

	"github.com/ringmq/ringmq/config"
)

// fallbackMemory is assumed where the system does not tell its memory.
const fallbackMemory = 8 << 30

// totalMemory is the machine's memory in bytes: MemTotal, or what the control group allows.
func totalMemory() int64 {
	total := int64(fallbackMemory)
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			f := bytes.Fields(lines.Bytes())
			if len(f) >= 2 && string(f[0]) == "MemTotal:" {
				if kib, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
					total = kib << 10
				}
				break
			}
		}
	}
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil && limit < total {
			total = limit
		}
	}
	return total
}

// reactorsOf is how many reactors the broker runs: as configured, else half of the cores, because the log's flusher and keeper, the lanes and
// Go's collector need the others.
func reactorsOf(c *config.Broker) int {
	if c.Reactors > 0 {
		return c.Reactors
	}
	return max(1, runtime.GOMAXPROCS(0)/2)
}

// haAddr is where slaves will connect.
func (b *Broker) haAddr() string {
	c := b.cfg.Load()
	port := c.HaListenPort
	if port == 0 {
		port = int(b.storeHost.Port) + 1
	}
	ip := c.BrokerIP2
	if ip == "" {
		ip = c.BrokerIP1
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}

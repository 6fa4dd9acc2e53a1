package config

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// valueCheck is a check of a text value and what it accepts, in words.
type valueCheck struct {
	ok      func(string) bool
	accepts string
}

// valueChecks are the checks that a field's tag can name.
var valueChecks = map[string]valueCheck{
	"name":          {validName, "a name of 1..127 characters without blanks and control characters"},
	"nameOrEmpty":   {func(s string) bool { return s == "" || validName(s) }, "a name of up to 127 characters without blanks and control characters"},
	"host":          {validHost, "an IP address or a host name, without a port"},
	"path":          {func(s string) bool { return s != "" }, "a path"},
	"singlePath":    {func(s string) bool { return !strings.Contains(s, ",") }, "one path; several, separated by commas, are not supported"},
	"listenOrEmpty": {func(s string) bool { return s == "" || validListen(s) }, "host:port, or nothing to switch it off"},
	"addresses":     {validAddresses, "host:port, several separated by \";\""},
	"hours":         {func(s string) bool { _, err := ParseHours(s); return err == nil }, "hours 0..23, several separated by \";\", such as 04;16"},
	"delays":        {func(s string) bool { _, err := ParseDelayLevels(s); return err == nil }, "delays separated by blanks, each a number with s, m, h or d, such as 1s 10s 5m 2h"},
	"cpus":          {func(s string) bool { _, err := ParseCPUs(s); return err == nil }, "CPU numbers and ranges, such as 0-3,8"},
	"tlsProtocols":  {validTLSProtocols, "TLSv1.2 and TLSv1.3, separated by \",\""},
}

func validName(s string) bool {
	if s == "" || len(s) > 127 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

// validHost accepts an empty text too: the loader finds the address then.
func validHost(s string) bool {
	if s == "" || net.ParseIP(s) != nil {
		return true
	}
	return len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

func validListen(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n <= math.MaxUint16
}

func validAddresses(s string) bool {
	for addr := range strings.SplitSeq(s, ";") {
		addr = strings.TrimSpace(addr)
		if addr == "" {
			continue
		}
		if host, _, err := net.SplitHostPort(addr); err != nil || host == "" || !validListen(addr) {
			return false
		}
	}
	return true
}

func validTLSProtocols(s string) bool {
	for p := range strings.SplitSeq(s, ",") {
		switch strings.TrimSpace(p) {
		case "", "TLSv1.2", "TLSv1.3":
		default:
			return false
		}
	}
	return true
}

// ParseHours reads a deleteWhen value, hours of the day separated by ";".
func ParseHours(s string) ([]int, error) {
	var hours []int
	for part := range strings.SplitSeq(s, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		h, err := strconv.Atoi(part)
		if err != nil || h < 0 || h > 23 {
			return nil, fmt.Errorf("hour %q is not 0..23", part)
		}
		hours = append(hours, h)
	}
	if len(hours) == 0 {
		return nil, fmt.Errorf("no hour in %q", s)
	}
	return hours, nil
}

// maxDelayLevels bounds the levels of a messageDelayLevel value: a level is a queue of the schedule topic.
const maxDelayLevels = 1024

// delayUnits are the units of a messageDelayLevel value.
var delayUnits = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}

// ParseDelayLevels reads a messageDelayLevel value; the first delay is that of level 1.
func ParseDelayLevels(s string) ([]time.Duration, error) {
	fields := strings.Fields(s)
	if len(fields) == 0 || len(fields) > maxDelayLevels {
		return nil, fmt.Errorf("%d delay levels: give 1..%d", len(fields), maxDelayLevels)
	}
	levels := make([]time.Duration, 0, len(fields))
	for _, f := range fields {
		unit, ok := delayUnits[f[len(f)-1]]
		n, err := strconv.ParseInt(f[:len(f)-1], 10, 32)
		if !ok || err != nil || n < 0 {
			return nil, fmt.Errorf("delay %q: give a number with s, m, h or d", f)
		}
		if time.Duration(n) > math.MaxInt64/unit {
			return nil, fmt.Errorf("delay %q is too long", f)
		}
		levels = append(levels, time.Duration(n)*unit)
	}
	return levels, nil
}

// maxCPU is the highest CPU number a list may name; the kernel's own bound is lower.
const maxCPU = 8191

// ParseCPUs reads a reactorCpus value such as 0-3,8.
func ParseCPUs(s string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		lo, err1 := strconv.Atoi(strings.TrimSpace(from))
		hi, err2 := strconv.Atoi(strings.TrimSpace(to))
		if err1 != nil || err2 != nil || lo < 0 || hi < lo || hi > maxCPU {
			return nil, fmt.Errorf("cpus %q: give a number or a range within 0..%d", part, maxCPU)
		}
		for c := lo; c <= hi && len(cpus) <= maxCPU; c++ {
			cpus = append(cpus, c)
		}
	}
	return cpus, nil
}

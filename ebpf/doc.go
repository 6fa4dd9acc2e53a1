// Package ebpf will hold the probes behind `ringmq trace`: programs attached to marker functions of the hot path and to
// kernel tracepoints, which show where a message spends its time between socket and disk.
//
// Nothing is here yet. The probe points they will attach to are functions of a single NOP: an entry probe on one costs
// about a microsecond, on an ordinary Go function thirty, and return probes are never used, since the Go runtime moves
// stacks under them.
package ebpf

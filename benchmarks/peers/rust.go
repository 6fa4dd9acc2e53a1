//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The binaries of rocketmq-rust's crates rocketmq-broker and rocketmq-namesrv.
const (
	rustBroker = "rocketmq-broker-rust"
	rustNames  = "rocketmq-namesrv-rust"
)

// findRust looks for rocketmq-rust. It is not built here: that takes a quarter of an hour and more.
func (o *options) findRust(context.Context) error {
	for _, name := range []string{rustBroker, rustNames} {
		if _, err := os.Stat(filepath.Join(o.bin, name)); err != nil {
			return fmt.Errorf("rocketmq-rust takes no part: %w (docs/benchmarks.md tells how to build it)", err)
		}
	}
	return nil
}

// rustCommands are the name server and the broker, with the same broker.conf as the other brokers of RocketMQ's kind.
func (o *options) rustCommands(dir, conf string, namesPort int) (names, broker *exec.Cmd) {
	env := append(os.Environ(), "ROCKETMQ_HOME="+dir, fmt.Sprintf("NAMESRV_ADDR=127.0.0.1:%d", namesPort))
	names = exec.Command(filepath.Join(o.bin, rustNames), "-c", filepath.Join(dir, "namesrv.conf"))
	broker = exec.Command(filepath.Join(o.bin, rustBroker), "-c", conf, "--config-format", "properties")
	names.Env, broker.Env = env, env
	return names, broker
}

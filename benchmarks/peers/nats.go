//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// natsVersion is the version of NATS's Go module that is built.
const natsVersion = "v2.15.2"

func (o *options) natsBinary() string { return filepath.Join(o.bin, "nats-server") }

// fetchNATS builds nats-server from its Go module, unless the folder has it.
func (o *options) fetchNATS(ctx context.Context) error {
	if _, err := os.Stat(o.natsBinary()); err == nil {
		return nil
	}
	_, _ = fmt.Fprintln(o.out, "building nats-server", natsVersion)
	cmd := exec.CommandContext(ctx, "go", "install", "github.com/nats-io/nats-server/v2@"+natsVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+o.bin, "CGO_ENABLED=0", "GOFLAGS=")
	cmd.Stdout, cmd.Stderr, cmd.Dir = o.out, os.Stderr, o.work
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build nats-server: %w (or leave it out of --peers)", err)
	}
	return nil
}

// natsCommand: defaults, but for the folder, and for sync_interval where a message is to be on the device before it is acknowledged.
func (s *server) natsCommand(o *options, port int, sc *scenario) error {
	s.protocol = "nats"
	flush := ""
	if sc.sync {
		flush = "  sync_interval: always\n"
	}
	conf := filepath.Join(s.dir, "nats.conf")
	text := fmt.Sprintf("listen: 127.0.0.1:%d\njetstream {\n  store_dir: %q\n%s}\n", port, filepath.Join(s.dir, "store"), flush)
	s.broker = exec.Command(o.natsBinary(), "-c", conf)
	return os.WriteFile(conf, []byte(text), 0o644)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmq/ringmq/config"
)

// processFlags are what every server command takes: -c, -p, the log level, and each property of its configuration by RocketMQ's name.
type processFlags struct {
	file     string
	print    bool
	logLevel string
	values   config.Flags
}

func addProcessFlags(c *cobra.Command, keys []config.Key) *processFlags {
	p := &processFlags{values: config.Flags{}}
	f := c.Flags()
	f.StringVarP(&p.file, "configFile", "c", "", "configuration file (.properties), as RocketMQ's")
	f.BoolVarP(&p.print, "printConfigItem", "p", false, "print every property and its value, and exit")
	f.StringVar(&p.logLevel, "logLevel", "info", "debug, info, warn or error")
	for _, k := range keys {
		f.Var(p.values.Value(k), k.Name, k.Usage())
		if k.Kind == "bool" {
			f.Lookup(k.Name).NoOptDefVal = "true"
		}
	}
	c.SetUsageTemplate(usageTemplate)
	return p
}

// usageTemplate keeps the help short: the properties are many, and -p lists them.
const usageTemplate = `Usage: {{.UseLine}}

  -c, --configFile FILE     configuration file (.properties), as RocketMQ's
  -p, --printConfigItem     print every property and its value, and exit
      --logLevel LEVEL      debug, info, warn or error
      --PROPERTY=VALUE      any property of RocketMQ's configuration by its name, such as --flushDiskType=SYNC_FLUSH;
                            or in the environment: RINGMQ_FLUSH_DISK_TYPE=SYNC_FLUSH
{{with index .Annotations "own"}}{{.}}{{end}}`

func (p *processFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(p.logLevel)); err != nil {
		return nil, fmt.Errorf("--logLevel %s: want debug, info, warn or error", p.logLevel)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})), nil
}

func (p *processFlags) source(log *slog.Logger) config.Source {
	return config.Source{File: p.file, Environ: os.Environ(), Flags: p.values, Log: log}
}

// loadBroker is the broker's configuration, and the log that the command writes.
func loadBroker(cmd *cobra.Command, p *processFlags) (*config.Live[config.Broker], *slog.Logger, error) {
	log, err := p.logger(cmd.ErrOrStderr())
	if err != nil {
		return nil, nil, err
	}
	live, err := config.LoadBroker(p.source(log))
	return live, log, err
}

// stopTimeout is how long a server may take to stop in order.
const stopTimeout = 30 * time.Second

// server is a process's server: started, and stopped in the reverse order.
type server interface {
	Shutdown(ctx context.Context) error
}

// runUntilDone waits for the signal to stop and then stops the servers, the last one first.
func runUntilDone(ctx context.Context, log *slog.Logger, servers ...server) error {
	<-ctx.Done()
	log.Info("stopping")
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	for i := len(servers) - 1; i >= 0; i-- {
		errs = append(errs, servers[i].Shutdown(stopping))
	}
	return errors.Join(errs...)
}

// ready prints the one line that scripts and people wait for.
func ready(w io.Writer, name string, began time.Time, parts ...string) {
	fmt.Fprintf(w, "ringmq %s is ready in %.3f s: %s\n", name, time.Since(began).Seconds(), strings.Join(parts, ", "))
}

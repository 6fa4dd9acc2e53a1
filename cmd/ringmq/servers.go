package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/metrics"
	"github.com/ringmq/ringmq/nameserver"
)

func nameServerCommand() *cobra.Command {
	c := &cobra.Command{Use: "nameserver", Aliases: []string{"namesrv"}, Short: "run a name server", Args: cobra.NoArgs}
	p := addProcessFlags(c, config.NameServerKeys())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		began := time.Now()
		log, err := p.logger(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		live, err := config.LoadNameServer(p.source(log))
		if err != nil {
			return err
		}
		if p.print {
			fmt.Fprint(cmd.OutOrStdout(), live.Text())
			return nil
		}
		tuneRuntime()
		ns, err := startNameServer(live, log)
		if err != nil {
			return err
		}
		ready(cmd.OutOrStdout(), "nameserver", began, "listening on "+ns.Addr().String())
		return runUntilDone(cmd.Context(), log, ns)
	}
	return c
}

func startNameServer(live *config.Live[config.NameServer], log *slog.Logger) (*nameserver.Server, error) {
	ns, err := nameserver.New(nameserver.Options{Config: live, Logger: log})
	if err != nil {
		return nil, err
	}
	ns.Start()
	return ns, nil
}

func brokerCommand() *cobra.Command {
	c := &cobra.Command{Use: "broker", Short: "run a broker", Args: cobra.NoArgs}
	p := addProcessFlags(c, config.BrokerKeys())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		began := time.Now()
		live, log, err := loadBroker(cmd, p)
		if err != nil {
			return err
		}
		if p.print {
			fmt.Fprint(cmd.OutOrStdout(), live.Text())
			return nil
		}
		tuneRuntime()
		b, err := broker.Open(live, broker.Options{Logger: log})
		if err != nil {
			return err
		}
		b.Start()
		m, err := serveMetrics(live.Load().MetricsListen, b, log)
		if err != nil {
			return errors.Join(err, b.Shutdown(cmd.Context()))
		}
		defer m.Close()
		ready(cmd.OutOrStdout(), "broker", began, "clients reach it at "+b.Addr(), "data in "+live.Load().StorePathRootDir)
		return runUntilDone(cmd.Context(), log, b)
	}
	return c
}

func standaloneCommand() *cobra.Command {
	c := &cobra.Command{Use: "standalone", Short: "run a name server and a broker in one process", Args: cobra.NoArgs, Annotations: map[string]string{"own": `
      --data DIR            where everything is kept; default ./ringmq-data
      --namesrvPort PORT    port of the name server; default 9876
`}}
	p := addProcessFlags(c, config.BrokerKeys())
	data := c.Flags().String("data", "ringmq-data", "where everything is kept")
	port := c.Flags().Int("namesrvPort", 9876, "port of the name server")
	c.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		began := time.Now()
		log, err := p.logger(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		// The property's own default is the same place.
		if _, given := p.values["storePathRootDir"]; !given && cmd.Flags().Changed("data") {
			p.values["storePathRootDir"] = filepath.Join(*data, "store")
		}
		live, err := config.LoadBroker(p.source(log))
		if err != nil {
			return err
		}
		if p.print {
			fmt.Fprint(cmd.OutOrStdout(), live.Text())
			return nil
		}
		tuneRuntime()
		names, err := config.LoadNameServer(nameServerSource(p, live.Load(), *data, *port, log))
		if err != nil {
			return err
		}
		ns, err := startNameServer(names, log)
		if err != nil {
			return err
		}
		_, nsPort, err := net.SplitHostPort(ns.Addr().String())
		if err != nil {
			return err
		}
		if err := live.SetDefault("namesrvAddr", net.JoinHostPort(reachable(live.Load().BindAddress), nsPort)); err != nil {
			return err
		}
		b, err := broker.Open(live, broker.Options{Logger: log})
		if err != nil {
			return errors.Join(err, ns.Shutdown(cmd.Context()))
		}
		b.Start()
		m, err := serveMetrics(live.Load().MetricsListen, b, log)
		if err != nil {
			return errors.Join(err, b.Shutdown(cmd.Context()), ns.Shutdown(cmd.Context()))
		}
		defer m.Close()
		if err := b.WaitRegistered(cmd.Context()); err != nil {
			log.Warn("the broker is not in the route yet", "err", err)
		}
		ready(cmd.OutOrStdout(), "standalone", began, "name server on port "+nsPort, "clients reach the broker at "+b.Addr(), "data in "+live.Load().StorePathRootDir)
		return runUntilDone(cmd.Context(), log, ns, b)
	}
	return c
}

// nameServerSource is the configuration of standalone's name server: what the broker was given, as far as a name server has it too, and its
// own files under data. The broker has read the TLS file already, and has its black list for itself.
func nameServerSource(p *processFlags, b *config.Broker, data string, port int, log *slog.Logger) config.Source {
	s := p.source(log)
	s.File = ""
	s.Flags = config.Flags{
		"tls.config.file": "",
		"kvConfigPath":    filepath.Join(data, "namesrv", "kvConfig.json"),
		"configStorePath": filepath.Join(data, "namesrv", "namesrv.properties"),
	}
	for _, k := range config.NameServerKeys() {
		if text, ok := config.ValueOf(b, k.Name); ok && k.Name != "configBlackList" && k.Name != "tls.config.file" {
			s.Flags[k.Name] = text
		}
	}
	s.Flags["listenPort"] = strconv.Itoa(port)
	return s
}

// reachable is where a listener on that address is reached from this machine.
func reachable(bind string) string {
	if addr, err := netip.ParseAddr(bind); err == nil && !addr.IsUnspecified() {
		return bind
	}
	return "127.0.0.1"
}

// serveMetrics serves the broker's metrics where metricsListen says; nowhere when it is empty.
func serveMetrics(addr string, b *broker.Broker, log *slog.Logger) (io.Closer, error) {
	if addr == "" {
		return io.NopCloser(nil), nil
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(b.Collector())
	return metrics.Listen(addr, reg, b.Healthy, log)
}

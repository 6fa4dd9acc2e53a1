package main

import (
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/doctor"
	"github.com/ringmq/ringmq/perf"
	"github.com/ringmq/ringmq/uring"
)

func doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "examine this machine for running a broker; print each finding with its cure",
		Annotations: map[string]string{"own": `
      --store DIR           store folder to look at; default: storePathRootDir
  -o, --output FORMAT       table or json; default table

Exit status: 0 all is well, or notes only; 1 warnings; 2 a failure: the broker will not start or will lose a promise; 3 it could not be examined.
`},
	}
	p := addProcessFlags(c, config.BrokerKeys())
	store := c.Flags().String("store", "", "store folder to look at")
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.Args = func(cmd *cobra.Command, args []string) error { return notExamined(cobra.NoArgs(cmd, args)) }
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return notExamined(err) })
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "table" && *output != "json" {
			return notExamined(fmt.Errorf("--output %s: want table or json", *output))
		}
		if *store != "" {
			p.values["storePathRootDir"] = *store
		}
		live, _, err := loadBroker(cmd, p)
		if err != nil {
			return notExamined(err)
		}
		if p.print {
			fmt.Fprint(cmd.OutOrStdout(), live.Text())
			return nil
		}
		report, err := doctor.Examine(cmd.Context(), doctorOptions(live.Load()))
		if err != nil {
			return notExamined(err)
		}
		if *output == "json" {
			err = report.JSON(cmd.OutOrStdout())
		} else {
			report.Print(cmd.OutOrStdout())
		}
		if err != nil {
			return notExamined(err)
		}
		if report.ExitStatus != doctor.ExitOK {
			return &perf.ExitError{Code: report.ExitStatus, Reason: fmt.Sprintf("doctor: exit status %d", report.ExitStatus)}
		}
		return nil
	}
	return c
}

// notExamined gives an error the exit status of a doctor that could not run.
func notExamined(err error) error {
	if err == nil {
		return nil
	}
	return &perf.ExitError{Code: doctor.ExitNoRun, Reason: err.Error()}
}

// doctorOptions is what the broker of this configuration asks of a machine.
func doctorOptions(b *config.Broker) doctor.Options {
	o := doctor.Options{
		StoreDir: b.StorePathRootDir, CommitLogDir: b.StorePathCommitLog, SegmentSize: b.MappedFileSizeCommitLog,
		MaxConnections: b.MaxConnections, Backlog: b.ServerSocketBacklog, MaxUsedRatio: b.DiskMaxUsedSpaceRatio,
		CleanForciblyRatio: b.DiskSpaceCleanForciblyRatio, WarningLevelRatio: b.DiskSpaceWarningLevelRatio, BindAddress: b.BindAddress,
		Advertised: b.BrokerIP1, AdvertisedFound: b.BrokerIP1 == config.DefaultBroker().BrokerIP1, IoUring: probeRing,
	}
	o.Ports = []doctor.Port{
		{Property: "listenPort", Bind: b.BindAddress, Number: b.ListenPort, Required: true},
		{Property: "fastListenPort", Bind: b.BindAddress, Number: b.FastListenPort, Required: true},
		{Property: "haListenPort", Bind: b.BindAddress, Number: b.HaListenPort},
		{Property: "the name server's listenPort", Bind: b.BindAddress, Number: config.DefaultNameServer().ListenPort},
	}
	if bind, port, ok := splitListen(b.MetricsListen); ok {
		o.Ports = append(o.Ports, doctor.Port{Property: "metricsListen", Bind: bind, Number: port, Required: true})
	}
	return o
}

func splitListen(addr string) (bind string, port int, ok bool) {
	bind, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, false
	}
	port, err = strconv.Atoi(text)
	return bind, port, err == nil
}

// probeRing tries io_uring out.
func probeRing() ([]doctor.Feature, error) {
	have, err := uring.Probe()
	if err != nil {
		return nil, err
	}
	var features []doctor.Feature
	for _, f := range have.List() {
		features = append(features, doctor.Feature{Name: f.Name, Present: f.Has, Since: f.Since})
	}
	return features, nil
}

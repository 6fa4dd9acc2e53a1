package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmq/ringmq/broker"
	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/config"
)

func recoverCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "recover", Short: "recover the store of a broker that was killed, and close it in order, without serving anybody",
		Args: cobra.NoArgs, Annotations: map[string]string{"own": `
      --store DIR           the store's folder; default: storePathRootDir

A start does the same by itself. This is for who takes the store elsewhere, such as to a Java broker, which does not look into ringmq-tail.
`},
	}
	p := addProcessFlags(c, config.BrokerKeys())
	store := c.Flags().String("store", "", "the store's folder")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *store != "" {
			p.values["storePathRootDir"] = *store
		}
		p.values["listenPort"], p.values["fastListenPort"] = "0", "-1" // a broker of another store may run
		live, log, err := loadBroker(cmd, p)
		if err != nil {
			return err
		}
		if p.print {
			fmt.Fprint(cmd.OutOrStdout(), live.Text())
			return nil
		}
		dir := live.Load().StorePathRootDir
		if _, err := os.Stat(dir); err != nil { // else a store would be made
			return fmt.Errorf("no store to recover: %w; name it with --store", err)
		}
		began := time.Now()
		report, err := broker.Recover(live, broker.Options{Logger: log})
		if err != nil {
			return err
		}
		printRecovery(cmd.OutOrStdout(), dir, report, time.Since(began))
		return nil
	}
	return c
}

func printRecovery(w io.Writer, dir string, r *commitlog.Report, took time.Duration) {
	fmt.Fprintf(w, "recovered %s in %.3f s: %d records were read again, from the log offset %d to the end, %d\n", dir, took.Seconds(), r.Records, r.From, r.End)
	if r.TornBytes > 0 {
		fmt.Fprintf(w, "%d bytes of a record that was cut short are gone\n", r.TornBytes)
	}
	for _, s := range r.Quarantined {
		fmt.Fprintf(w, "damaged: the log from %d to %d; a copy is in the store's folder quarantine\n", s.From, s.To)
	}
	fmt.Fprintln(w, "closed in order: any broker may open it")
}

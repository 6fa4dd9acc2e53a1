package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/perf"
	"github.com/ringmq/ringmq/tune"
)

func tuneCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "tune", Short: "measure this disk and this kernel; write what is best to the store, for ioEngine=auto",
		Annotations: map[string]string{"own": `
      --store DIR           store folder on the disk to measure; default: storePathRootDir
      --duration TIME       about how long; default 1m
  -o, --output FORMAT       table or json; default table

Writes ringmq-tune.json to the store folder. No broker may run on it meanwhile.
Exit status: 0 measured and written; 3 not measured, nothing was written.
`},
	}
	p := addProcessFlags(c, config.BrokerKeys())
	store := c.Flags().String("store", "", "store folder on the disk to measure")
	duration := c.Flags().Duration("duration", time.Minute, "about how long")
	output := c.Flags().StringP("output", "o", "table", "table or json")
	c.Args = func(cmd *cobra.Command, args []string) error { return notMeasured(cobra.NoArgs(cmd, args)) }
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return notMeasured(err) })
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "table" && *output != "json" {
			return notMeasured(fmt.Errorf("--output %s: want table or json", *output))
		}
		if *duration < time.Second || *duration > time.Hour {
			return notMeasured(fmt.Errorf("--duration %s: want 1s to 1h", *duration))
		}
		if *store != "" {
			p.values["storePathRootDir"] = *store
		}
		live, _, err := loadBroker(cmd, p)
		if err != nil {
			return notMeasured(err)
		}
		if p.print {
			fmt.Fprint(cmd.OutOrStdout(), live.Text())
			return nil
		}
		o := tuneOptions(live.Load(), *store)
		o.Duration = *duration
		progress := &progressLine{w: cmd.ErrOrStderr()}
		o.Progress = progress.show
		report, err := tune.Run(cmd.Context(), o)
		progress.end()
		if err != nil {
			if cmd.Context().Err() != nil {
				err = errors.New("interrupted: nothing was written")
			}
			return notMeasured(err)
		}
		if *output == "json" {
			return notMeasured(report.JSON(cmd.OutOrStdout()))
		}
		report.Print(cmd.OutOrStdout())
		return nil
	}
	return c
}

// tuneOptions are the folders of the broker of this configuration. With --store it is that folder's disk and no other.
func tuneOptions(b *config.Broker, store string) tune.Options {
	o := tune.Options{StoreDir: b.StorePathRootDir, LogDir: b.StorePathCommitLog}
	if store != "" {
		o.LogDir = ""
	}
	return o
}

// notMeasured gives an error the exit status of a run that came to nothing.
func notMeasured(err error) error {
	if err == nil {
		return nil
	}
	return &perf.ExitError{Code: tune.ExitNoRun, Reason: err.Error()}
}

// progressLine is one line that is written over on a terminal, and elsewhere a line a round.
type progressLine struct {
	w     io.Writer
	round int
	shown bool
}

func (l *progressLine) show(p tune.Progress) {
	if terminal(l.w) {
		l.shown = true
		fmt.Fprintf(l.w, "\r\x1b[K%d of %d, round %d of %d: %s, %s", p.Step, p.Steps, p.Round, p.Rounds, p.Section, p.Kind)
	} else if p.Round != l.round {
		l.round = p.Round
		fmt.Fprintf(l.w, "round %d of %d\n", p.Round, p.Rounds)
	}
}

// end clears the line.
func (l *progressLine) end() {
	if l.shown {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

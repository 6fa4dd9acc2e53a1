// Command ringmq is the name server, the broker and their tools in one binary.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ringmq/ringmq/perf"
)

// version is set by the Makefile.
var version = "dev"

func main() {
	root := &cobra.Command{
		Use:   "ringmq",
		Short: "RocketMQ's name server, broker and tools in one binary",
		Long: `ringmq serves official Apache RocketMQ clients and tools unchanged, and reads and writes RocketMQ's store.

  ringmq standalone        name server and broker in one process, data under ./ringmq-data
  ringmq perf e2e          send, consume and verify messages; prints latency percentiles
  ringmq doctor            examine this machine: what keeps a broker from its promises here, and the cure
  ringmq tune              measure this disk and kernel for a minute; ioEngine=auto takes what was best
  ringmq recover           recover the store of a killed broker and close it in order, for another broker to open`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(standaloneCommand(), nameServerCommand(), brokerCommand(), doctorCommand(), tuneCommand(), recoverCommand(), perf.Command())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ringmq:", err)
		os.Exit(perf.ExitCode(err))
	}
}

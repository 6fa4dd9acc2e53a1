package perf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/ringmq/ringmq/remoting"
)

const commandHelp = `Sends to and reads from any RocketMQ-compatible broker, measures, and verifies every message.

Exit status: 0 everything was answered and verified; 1 the load could not be started; 2 verification found something
lost, duplicated, out of order, corrupt or missing; 3 verified, but some requests failed or got no answer.`

// Command is "perf" with its sub-commands, for the main program. ExitCode gives the exit status for what it returns.
func Command() *cobra.Command {
	root := &cobra.Command{Use: "perf", Short: "generate load, measure and verify", Long: commandHelp}
	root.AddCommand(
		loadCommand("produce", "send, by rate or by depth, and check the answers", sendFlags, func(c *cobra.Command, config Config) (*Report, error) {
			return Produce(c.Context(), config)
		}),
		loadCommand("consume", "read what comes, with long polls, and verify it", readFlags, func(c *cobra.Command, config Config) (*Report, error) {
			return Consume(c.Context(), config)
		}),
		loadCommand("e2e", "send and read at once: ack and end-to-end latency, everything acknowledged must arrive once and in order", bothFlags,
			func(c *cobra.Command, config Config) (*Report, error) { return EndToEnd(c.Context(), config) }),
		loadCommand("drain", "read whole queues as fast as the broker answers, and verify", readFlags, func(c *cobra.Command, config Config) (*Report, error) {
			return Drain(c.Context(), config)
		}),
		stubCommand(),
		plotCommand(),
	)
	return root
}

// flagValues are flags whose text has to be read first.
type flagValues struct {
	config            Config
	nameServers       string
	brokers           string
	serialize, output string
	rate              string
	quiet             bool
}

func loadCommand(use, short string, flags func(*cobra.Command, *flagValues), run func(*cobra.Command, Config) (*Report, error)) *cobra.Command {
	v := new(flagValues)
	cmd := &cobra.Command{
		Use: use, Short: short, Long: strings.ToUpper(short[:1]) + short[1:] + ".\n\n" + commandHelp, Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := v.settle(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			cmd.SetContext(ctx)
			report, err := run(cmd, config)
			if report != nil {
				if printErr := v.print(cmd.OutOrStdout(), report); err == nil {
					err = printErr
				}
			}
			if err != nil {
				return err
			}
			return report.Err()
		},
	}
	commonFlags(cmd, v)
	flags(cmd, v)
	return cmd
}

func commonFlags(cmd *cobra.Command, v *flagValues) {
	f, c := cmd.Flags(), &v.config
	f.StringVarP(&v.nameServers, "namesrv", "n", "", "name servers, host:port;host:port")
	f.StringVarP(&v.brokers, "broker", "b", "", "brokers to dial directly instead, host:port,host:port")
	f.StringVar(&c.Protocol, "protocol", Protocols[0], "what the brokers speak: "+strings.Join(Protocols, ", ")+" (the latter two with --broker)")
	f.Int64Var(&c.KeepBytes, "keep-bytes", 0, "nats, kafka: bytes that a topic (kafka: a queue) keeps")
	f.BoolVar(&c.Windows, "windows", false, "report every second by itself (-o json)")
	f.StringVar(&c.Cluster, "cluster", "", "only the brokers of this cluster")
	f.StringVarP(&c.Topic, "topic", "t", "perf", "topic, or what several topics' names begin with")
	f.IntVar(&c.Topics, "topics", 1, "number of topics")
	f.IntVar(&c.Queues, "queues", 4, "queues per topic and broker")
	f.BoolVar(&c.UseExisting, "existing", false, "do not create topics; with --namesrv their queues come from the route")
	f.StringVar(&v.serialize, "serialize", "json", "header serialisation: json or rocketmq")
	f.DurationVarP(&c.Duration, "duration", "d", 10*time.Second, "measured time")
	f.DurationVar(&c.Warmup, "warmup", 0, "time before it, verified but not measured")
	f.Int64Var(&c.Count, "count", 0, "end after so many messages instead")
	f.DurationVar(&c.Timeout, "timeout", 3*time.Second, "of one request")
	f.StringVar(&c.Tag, "tag", "", "tag of the messages")
	f.IntVar(&c.ServerPID, "server-pid", 0, "measure CPU and memory of this process")
	f.BoolVar(&c.StrictOrder, "strict-order", false, "fail when messages in flight at the same time were stored in another order")
	f.StringVarP(&v.output, "output", "o", "table", "table or json")
	f.StringVar(&c.HDR, "hdr", "", "write the histograms of each second to this file (HdrHistogram log)")
	f.StringVar(&c.Plot, "plot", "", "draw latency over percentile to this file (SVG)")
	f.StringVar(&c.Ledger, "ledger", "", "file of what was acknowledged: produce and e2e write it, drain and consume check against it")
	f.BoolVarP(&v.quiet, "quiet", "q", false, "no progress line")
}

func sendFlags(cmd *cobra.Command, v *flagValues) {
	f, c := cmd.Flags(), &v.config
	f.StringVarP(&v.rate, "rate", "r", "", "open loop: messages per second, such as 10000 or 10k/s; without it a closed loop")
	f.IntVarP(&c.Conns, "conns", "c", 1, "connections that send")
	f.IntVar(&c.Depth, "depth", 1, "closed loop: requests in flight per connection")
	f.IntVarP(&c.Size, "size", "s", 1024, fmt.Sprintf("bytes of a body, at least %d", MinSize))
	f.IntVar(&c.Batch, "batch", 1, "messages per request")
	f.IntVar(&c.Workers, "workers", 1, "threads that send")
	f.StringVar(&c.Keys, "keys", "", `keys of the messages; "unique": one of its own for each`)
	f.BoolVar(&c.Shared, "shared", false, "others send to the topics, too")
}

func readFlags(cmd *cobra.Command, v *flagValues) {
	pullFlags(cmd, v)
	cmd.Flags().IntVar(&v.config.Passes, "passes", 1, "drain: how often every queue is read")
	cmd.Flags().StringVar(&v.config.From, "from", "", "where to begin: min, max or a queue offset (consume: max, drain: min)")
}

func pullFlags(cmd *cobra.Command, v *flagValues) {
	f, c := cmd.Flags(), &v.config
	f.IntVar(&c.PullConns, "pull-conns", 1, "connections that pull")
	f.IntVar(&c.PullBatch, "pull-batch", 32, "messages that one pull asks for")
	f.IntVar(&c.PullBytes, "pull-bytes", 1<<20, "kafka: bytes that one pull asks for")
	f.IntVar(&c.Readers, "readers", 1, "threads that pull")
	f.DurationVar(&c.Idle, "idle", 10*time.Second, "give up when nothing has come for so long")
}

func bothFlags(cmd *cobra.Command, v *flagValues) {
	sendFlags(cmd, v)
	pullFlags(cmd, v)
}

func (v *flagValues) settle(stderr io.Writer) (Config, error) {
	c := v.config
	split := func(r rune) bool { return r == ';' || r == ',' || r == ' ' }
	c.NameServers, c.Brokers = strings.FieldsFunc(v.nameServers, split), strings.FieldsFunc(v.brokers, split)
	switch v.serialize {
	case "json":
		c.Serialize = remoting.SerializeJSON
	case "rocketmq":
		c.Serialize = remoting.SerializeRocketMQ
	default:
		return c, fmt.Errorf("--serialize %q is neither json nor rocketmq", v.serialize)
	}
	if v.output != "table" && v.output != "json" {
		return c, fmt.Errorf("--output %q is neither table nor json", v.output)
	}
	var err error
	if c.Rate, err = parseRate(v.rate); err != nil {
		return c, err
	}
	if !v.quiet {
		c.Progress = stderr
		c.ProgressTo = isTerminal(stderr)
	}
	return c, nil
}

// parseRate reads "10000", "10k", "10k/s", "1.5m"; "" is 0.
func parseRate(text string) (float64, error) {
	number := strings.TrimSuffix(strings.ToLower(text), "/s")
	factor := 1.0
	switch {
	case number == "":
		return 0, nil
	case strings.HasSuffix(number, "k"):
		number, factor = number[:len(number)-1], 1e3
	case strings.HasSuffix(number, "m"):
		number, factor = number[:len(number)-1], 1e6
	}
	rate, err := strconv.ParseFloat(number, 64)
	if err != nil || rate <= 0 || rate*factor > 1e9 {
		return 0, fmt.Errorf("--rate %q is not a rate such as 10000 or 10k/s", text)
	}
	return rate * factor, nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (v *flagValues) print(w io.Writer, report *Report) error {
	if v.output != "json" {
		report.Print(w)
		return nil
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}

func stubCommand() *cobra.Command {
	var listen string
	fill := new(StubFill)
	cmd := &cobra.Command{
		Use: "stub", Short: "the control: a server that answers producers and stores nothing", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			if fill.File == "" {
				fill = nil
			}
			return RunStub(ctx, listen, fill, func(addr string) { _, _ = fmt.Fprintf(cmd.OutOrStdout(), "stub listens on %s\n", addr) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:0", "address")
	f.StringVar(&fill.File, "fill", "", "file to write ready records to, which pulls are then answered from")
	f.StringVar(&fill.Topic, "fill-topic", "perf", "their topic")
	f.IntVar(&fill.Queues, "fill-queues", 4, "its queues")
	f.IntVar(&fill.Count, "fill-count", 100_000, "records in each queue")
	f.IntVar(&fill.Size, "fill-size", 1024, "bytes of a body")
	return cmd
}

func plotCommand() *cobra.Command {
	var title, tag string
	cmd := &cobra.Command{
		Use: "plot OUT.svg LOG...", Short: "draw several HdrHistogram logs into one percentile plot", Args: cobra.MinimumNArgs(2), SilenceUsage: true,
		RunE: func(_ *cobra.Command, args []string) error {
			var series []Series
			for _, name := range args[1:] {
				one, err := readIntervalLog(name, tag)
				if err != nil {
					return err
				}
				series = append(series, one...)
			}
			return os.WriteFile(args[0], []byte(Plot(title, series)), 0o644)
		},
	}
	cmd.Flags().StringVar(&title, "title", "latency", "title of the plot")
	cmd.Flags().StringVar(&tag, "tag", "", "only this latency, such as ack or end-to-end")
	return cmd
}

// readIntervalLog adds the intervals of each tag up; the series are named after the file, and the tag where there are several.
func readIntervalLog(name, only string) ([]Series, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := hdrhistogram.NewHistogramLogReader(file)
	sums, tags := map[string]*hdrhistogram.Histogram{}, []string(nil)
	for {
		h, err := reader.NextIntervalHistogram()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if h == nil {
			break
		}
		if only != "" && h.Tag() != only {
			continue
		}
		if sums[h.Tag()] == nil {
			sums[h.Tag()] = newHistogram()
			tags = append(tags, h.Tag())
		}
		sums[h.Tag()].Merge(h)
	}
	if len(tags) == 0 {
		return nil, fmt.Errorf("%s: no histograms in it", name)
	}
	base := strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
	var series []Series
	for _, tag := range tags {
		label := base
		if len(tags) > 1 {
			label += " " + tag
		}
		series = append(series, Series{label, sums[tag]})
	}
	return series, nil
}

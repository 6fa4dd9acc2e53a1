package broker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/internal/seccomp"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/remoting"
)

// brokerProcess in the environment makes this test binary a broker: one that can be killed.
const brokerProcess = "RINGMQ_TEST_BROKER"

// processOptions are what the parent tells its broker process, which answers with its address as soon as it serves.
type processOptions struct{ Dir, FlushDiskType string }

func TestMain(m *testing.M) {
	seccomp.RefuseIfAsked(os.Getenv("RINGMQ_TEST_REFUSE_IO_URING"))
	if text := os.Getenv(brokerProcess); text != "" {
		if err := serveUntilKilled(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func serveUntilKilled(text string) error {
	var o processOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	cfg := testConfig(o.Dir)
	cfg.FlushDiskType = o.FlushDiskType
	b, err := Open(config.NewLiveBroker(cfg), Options{})
	if err != nil {
		return err
	}
	b.Start()
	cpu, _ := ioengine.ProcessCPU()
	fmt.Println(b.Addr(), int64(cpu))
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // the parent says nothing: this ends with it
	return b.Shutdown(context.Background())
}

// process is a broker in a process of its own.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	addr  string
	start time.Duration // from the start of the process until it serves
	cpu   time.Duration // of the processors in that time; 0 where it is not known
}

func startProcess(t testing.TB, o processOptions) *process {
	t.Helper()
	text, err := json.Marshal(o)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), brokerProcess+"="+string(text))
	cmd.Stderr = os.Stderr
	_, err = cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	began := time.Now()
	require.NoError(t, cmd.Start())
	p := &process{t: t, cmd: cmd}
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "the broker does not start")
	p.start = time.Since(began)
	_, err = fmt.Sscan(line, &p.addr, (*int64)(&p.cpu))
	require.NoError(t, err, "the broker says %q", line)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func (p *process) dial() *testClient {
	p.t.Helper()
	c, err := client.Dial(context.Background(), p.addr, client.Options{Timeout: patience})
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = c.Close() })
	return &testClient{c, p.t}
}

// ledger is what was acknowledged of one queue, by offset.
type ledger struct {
	mu    sync.Mutex
	acked map[int64]string
	sent  int // numbers the messages over all rounds
}

// sendUntilKilled keeps depth messages in flight on one queue until the connection ends, and notes what is acknowledged. Their bodies are
// numbers that grow, so that the order can be told afterwards.
func (l *ledger) sendUntilKilled(c *testClient, queueID, depth int, acked chan<- int) {
	slots, ended := make(chan bool, depth), c.Done()
	for {
		select {
		case slots <- true:
		case <-ended:
			return
		}
		l.sent++
		body := strconv.Itoa(l.sent) + strings.Repeat(" ", l.sent*37%900)
		err := c.Go(client.Request{Code: remoting.ReqSendMessageV2, Fields: toSend("T", queueID).short(), Body: []byte(body)}, func(a *remoting.Command, err error) {
			<-slots
			if err != nil || a.Code != remoting.RespSuccess {
				return
			}
			offset, err := a.Int("queueOffset", -1)
			if err != nil {
				return
			}
			l.mu.Lock()
			l.acked[offset] = body
			l.mu.Unlock()
			select {
			case acked <- queueID:
			default:
			}
		})
		if err != nil {
			return
		}
	}
}

// check reads the whole queue: every message that was acknowledged is where the answer said, and the numbers grow.
func (l *ledger) check(c *testClient, queueID int) (read int) {
	c.t.Helper()
	found, last := 0, 0
	for next := int64(0); ; {
		r, got := c.pull("checker", "T", queueID, next)
		if r.Code == remoting.RespPullNotFound {
			require.Equal(c.t, next, intField(c.t, r, "maxOffset"))
			break
		}
		require.Zero(c.t, r.Code, r.Remark)
		for i := range got {
			require.Equal(c.t, next, got[i].QueueOffset, "no hole")
			body := string(got[i].Body)
			n, err := strconv.Atoi(strings.TrimRight(body, " "))
			require.NoError(c.t, err)
			require.Greater(c.t, n, last, "queue %d at %d: the order of one sender", queueID, next)
			last = n
			if want, ok := l.acked[next]; ok {
				require.Equal(c.t, want, body, "queue %d at %d", queueID, next)
				found++
			}
			next++
			read++
		}
	}
	require.Equal(c.t, len(l.acked), found, "queue %d: acknowledged messages that are there", queueID)
	return read
}

// A broker that is killed while clients send loses nothing that it acknowledged, keeps each queue's order, and is back in no time.
func TestKillWhileClientsSend(t *testing.T) {
	const rounds, queues, depth = 10, 4, 16
	for _, flush := range []string{config.AsyncFlush, config.SyncFlush} {
		t.Run(flush, func(t *testing.T) {
			o := processOptions{Dir: t.TempDir(), FlushDiskType: flush}
			ledgers := make([]*ledger, queues)
			for i := range ledgers {
				ledgers[i] = &ledger{acked: map[int64]string{}}
			}
			var starts []time.Duration
			var cpu time.Duration
			for round := range rounds {
				p := startProcess(t, o)
				starts, cpu = append(starts, p.start), max(cpu, p.cpu)
				if round == 0 {
					p.dial().createTopic("T")
				}
				acked, stopped := make(chan int, 1<<16), sync.WaitGroup{}
				for id, l := range ledgers {
					c := p.dial()
					stopped.Go(func() { l.sendUntilKilled(c, id, depth, acked) })
				}
				for range 200 + 300*round { // so that it is killed at other places each time
					receive(t, acked)
				}
				p.kill()
				stopped.Wait()
			}
			p := startProcess(t, o)
			starts, cpu = append(starts, p.start), max(cpu, p.cpu)
			slices.Sort(starts)
			read, total := 0, 0
			for id, l := range ledgers {
				l.mu.Lock()
				read += l.check(p.dial(), id)
				total += len(l.acked)
				l.mu.Unlock()
			}
			t.Logf("%s: %d kills; %d messages acknowledged, all there; %d stored; starts took %s to %s, half of them up to %s, and at most %s of processor time",
				flush, rounds, total, read, starts[0], starts[rounds], starts[rounds/2], cpu)
			require.GreaterOrEqual(t, total, rounds*200)
			// No start does much, and none waits for a time that is set. A single one may have to wait for others on a busy machine.
			require.Less(t, cpu, mostStart)
			require.Less(t, starts[0], mostStart)
			p.dial().must(remoting.ReqGetTopicConfig, fields{"topic": "T"}, nil)
		})
	}
}

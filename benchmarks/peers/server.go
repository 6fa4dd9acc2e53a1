//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/perf"
)

const (
	javaServer  = "java"
	rustServer  = "rust"
	natsServer  = "nats"
	kafkaServer = "kafka"
	ringServer  = "ringmq"
	stubServer  = "control"
	// lazyServer is Java without AlwaysPreTouch. It takes part in the starts only, to tell what that option is worth there.
	lazyServer = "java-lazy"
	// bareServer is no server, but a program of ours that does the one thing that a scenario is about.
	bareServer = "bare"
)

// serverNames are the servers in the order of the tables.
var serverNames = []string{javaServer, rustServer, natsServer, kafkaServer, ringServer, stubServer}

// title is a server's name in tables.
func title(name string) string {
	switch name {
	case javaServer:
		return "Java"
	case lazyServer:
		return "Java without AlwaysPreTouch"
	case rustServer:
		return "RocketMQ Rust"
	case natsServer:
		return "NATS"
	case kafkaServer:
		return "Kafka"
	case bareServer:
		return "bare program"
	}
	return name
}

// server is one of the programs under load: a broker, for RocketMQ with its name server.
type server struct {
	name     string
	addr     string // of the broker
	protocol string // of perf
	broker   *exec.Cmd
	names    *exec.Cmd             // RocketMQ's name server
	build    func(s *server) error // makes broker and names afresh
	dir      string
	exited   chan struct{} // closed when the broker has ended
}

func (s *server) pid() int { return s.broker.Process.Pid }

// launch starts the server of that name for a scenario, with an empty store, and does not wait for it.
func (o *options) launch(name string, sc *scenario) (*server, error) {
	dir, err := os.MkdirTemp(o.work, "store-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	namesPort, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{name: name, dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port), protocol: "rocketmq"}
	s.build = func(s *server) error { return s.commands(o, port, namesPort, sc) }
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// start runs the server's commands, over the store that its folder has.
func (s *server) start() error {
	s.names, s.broker, s.exited = nil, nil, make(chan struct{})
	if err := s.build(s); err != nil {
		return err
	}
	for _, cmd := range []*exec.Cmd{s.names, s.broker} {
		if cmd == nil {
			continue
		}
		if err := begin(cmd, s.dir); err != nil {
			s.end(true)
			return fmt.Errorf("start %s: %w", title(s.name), err)
		}
	}
	broker, exited := s.broker, s.exited
	go func() {
		_ = broker.Wait()
		close(exited)
	}()
	return nil
}

// stopLimit is how long a server may take to stop in order.
const stopLimit = 5 * time.Minute

// restart ends the server by a signal and starts it again over its store. It tells how long it took to end, and when the new one
// was started.
func (s *server) restart(ctx context.Context, sig os.Signal) (stopped time.Duration, began time.Time, err error) {
	told := time.Now()
	s.signal(sig)
	select {
	case <-s.exited:
	case <-ctx.Done():
		return 0, began, ctx.Err()
	case <-time.After(stopLimit):
		return 0, began, fmt.Errorf("%s does not end within %v after %v", title(s.name), stopLimit, sig)
	}
	stopped = time.Since(told)
	if s.names != nil {
		_ = s.names.Wait()
	}
	began = time.Now()
	return stopped, began, s.start()
}

func (s *server) commands(o *options, port, namesPort int, sc *scenario) error {
	switch s.name {
	case stubServer:
		args := []string{"perf", "stub", "--listen", s.addr}
		if sc.fill != nil {
			args = append(append(args, "--fill", filepath.Join(s.dir, "records")), sc.fill...)
		}
		s.broker = exec.Command(o.ringmq, args...)
		return nil
	case natsServer:
		return s.natsCommand(o, port, sc)
	case kafkaServer:
		return s.kafkaCommand(o, port, namesPort, sc)
	}
	conf := filepath.Join(s.dir, "broker.conf")
	switch s.name {
	case javaServer:
		s.names, s.broker = o.javaCommands(s.dir, conf, javaOptions(o.heap))
	case lazyServer:
		lazy := slices.DeleteFunc(javaOptions(o.heap), func(option string) bool { return option == preTouch })
		s.names, s.broker = o.javaCommands(s.dir, conf, lazy)
	case rustServer:
		s.names, s.broker = o.rustCommands(s.dir, conf, namesPort)
	default:
		s.broker = exec.Command(o.ringmq, "standalone", "-c", conf, "--data", s.dir, "--namesrvPort", strconv.Itoa(namesPort), "--metricsListen=127.0.0.1:0", "--ioEngine="+o.engine)
	}
	err := os.WriteFile(conf, []byte(brokerConf(s.dir, port, namesPort, sc)), 0o644)
	return errors.Join(err, os.WriteFile(filepath.Join(s.dir, "namesrv.conf"), fmt.Appendf(nil, "listenPort=%d\n", namesPort), 0o644))
}

// brokerConf is the same for all brokers of RocketMQ's kind: the distribution's broker.conf, with ports and folders of our own.
// Everything that it does not name is each one's default.
func brokerConf(dir string, port, namesPort int, sc *scenario) string {
	flush := "ASYNC_FLUSH"
	if sc.sync {
		flush = "SYNC_FLUSH"
	}
	store := filepath.Join(dir, "store")
	conf := sc.conf
	if sc.name != longName {
		// However full the disk is of other things, nothing is deleted and nothing refused.
		conf = append(slices.Clone(conf), "diskMaxUsedSpaceRatio=100", "diskSpaceCleanForciblyRatio=100", "diskSpaceWarningLevelRatio=100")
	}
	return fmt.Sprintf(`brokerClusterName=DefaultCluster
brokerName=broker-a
brokerId=0
deleteWhen=04
fileReservedTime=48
brokerRole=ASYNC_MASTER
flushDiskType=%s
brokerIP1=127.0.0.1
listenPort=%d
haListenPort=%d
namesrvAddr=127.0.0.1:%d
storePathRootDir=%s
storePathCommitLog=%s
%s
`, flush, port, port+1, namesPort, store, filepath.Join(store, "commitlog"), strings.Join(conf, "\n"))
}

// begin starts a command with its output in a file. Its process group is its own: an interrupt from the terminal comes to us, and
// we end it. It dies with us.
func begin(cmd *exec.Cmd, dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, "out.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}

// freePort finds a port that is free together with its neighbours that brokers take: two below (fast), one above (HA).
func freePort() (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if portFree(port-2) && portFree(port+1) {
			return port, nil
		}
	}
	return 0, errors.New("no free ports")
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// startLimit is how long a server may take; on a busy machine a Java program needs most of it.
const startLimit = 3 * time.Minute

// ready waits until a send is acknowledged, and tells when the port answered first.
func (s *server) ready(ctx context.Context) (answered time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		err := s.trySend(ctx, &answered)
		if err == nil {
			return answered, nil
		}
		select {
		case <-s.exited:
			return answered, fmt.Errorf("%s ended by itself, see %s", title(s.name), filepath.Join(s.dir, "out.log"))
		case <-ctx.Done():
			return answered, fmt.Errorf("%s does not get ready: %w", title(s.name), err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// trySend creates a topic and sends one message.
func (s *server) trySend(ctx context.Context, answered *time.Time) error {
	if answered.IsZero() {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", s.addr)
		if err != nil {
			return err
		}
		_ = conn.Close()
		*answered = time.Now()
	}
	// A server that has just opened its port may leave a request without an answer.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return perf.Ping(ctx, perf.Config{Brokers: []string{s.addr}, Protocol: s.protocol, Topic: "first"})
}

// signal reaches the processes of this server and no others.
func (s *server) signal(sig os.Signal) {
	for _, cmd := range []*exec.Cmd{s.broker, s.names} {
		if cmd != nil && cmd.Process != nil {
			_ = cmd.Process.Signal(sig)
		}
	}
}

// end kills the server (its store goes with it: there is nothing to end in order) and removes its folder, unless that is to be
// looked at.
func (s *server) end(keep bool) {
	s.signal(syscall.SIGKILL)
	if s.broker != nil && s.broker.Process != nil {
		<-s.exited
	}
	if s.names != nil && s.names.Process != nil {
		_ = s.names.Wait()
	}
	if !keep {
		_ = os.RemoveAll(s.dir)
	}
}

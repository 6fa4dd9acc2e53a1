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
	"syscall"
	"time"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

const (
	javaServer = "Java"
	// lazyServer is Java without AlwaysPreTouch. It takes part in the starts only, to tell what that option is worth there.
	lazyServer = "Java without AlwaysPreTouch"
	ringServer = "ringmq"
	stubServer = "control"
)

// serverNames are the servers in the order of the tables.
var serverNames = []string{javaServer, ringServer, stubServer}

// server is one of the programs under load: a broker, for Java with its name server.
type server struct {
	name   string
	addr   string // of the broker
	broker *exec.Cmd
	names  *exec.Cmd // Java's name server
	dir    string
	exited chan struct{} // closed when the broker has ended
}

func (s *server) pid() int { return s.broker.Process.Pid }

// launch starts the server of that name with an empty store and does not wait for it.
func (o *options) launch(name string, sync bool) (*server, error) {
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
	s := &server{name: name, dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port), exited: make(chan struct{})}
	if err := s.commands(o, port, namesPort, sync); err != nil {
		return nil, err
	}
	for _, cmd := range []*exec.Cmd{s.names, s.broker} {
		if cmd == nil {
			continue
		}
		if err := begin(cmd, dir); err != nil {
			s.end(true)
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
	}
	go func() {
		_ = s.broker.Wait()
		close(s.exited)
	}()
	return s, nil
}

func (s *server) commands(o *options, port, namesPort int, sync bool) error {
	conf := filepath.Join(s.dir, "broker.conf")
	switch s.name {
	case stubServer:
		s.broker = exec.Command(o.ringmq, "perf", "stub", "--listen", s.addr)
		return nil
	case javaServer:
		s.names, s.broker = o.javaCommands(s.dir, conf, javaOptions(o.heap))
	case lazyServer:
		lazy := slices.DeleteFunc(javaOptions(o.heap), func(option string) bool { return option == preTouch })
		s.names, s.broker = o.javaCommands(s.dir, conf, lazy)
	default:
		s.broker = exec.Command(o.ringmq, "standalone", "-c", conf, "--data", s.dir, "--namesrvPort", strconv.Itoa(namesPort), "--metricsListen=127.0.0.1:0")
	}
	err := os.WriteFile(conf, []byte(brokerConf(s.dir, port, namesPort, sync)), 0o644)
	return errors.Join(err, os.WriteFile(filepath.Join(s.dir, "namesrv.conf"), fmt.Appendf(nil, "listenPort=%d\n", namesPort), 0o644))
}

// brokerConf is the same for both brokers: the distribution's broker.conf, with ports and folders of our own. Everything that it does
// not name is each one's default.
func brokerConf(dir string, port, namesPort int, sync bool) string {
	flush := "ASYNC_FLUSH"
	if sync {
		flush = "SYNC_FLUSH"
	}
	store := filepath.Join(dir, "store")
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
`, flush, port, port+1, namesPort, store, filepath.Join(store, "commitlog"))
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

// ready waits until a send succeeds, and tells when the port answered first.
func (s *server) ready(ctx context.Context) (answered time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := s.trySend(ctx, &answered)
		if err == nil {
			return answered, nil
		}
		select {
		case <-s.exited:
			return answered, fmt.Errorf("%s ended by itself, see %s", s.name, filepath.Join(s.dir, "out.log"))
		case <-ctx.Done():
			return answered, fmt.Errorf("%s does not get ready: %w", s.name, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// trySend creates a topic and sends one message.
func (s *server) trySend(ctx context.Context, answered *time.Time) error {
	conn, err := client.Dial(ctx, s.addr, client.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	if answered.IsZero() {
		*answered = time.Now()
	}
	_, err = conn.Call(ctx, client.Request{Code: remoting.ReqUpdateAndCreateTopic, Fields: map[string]string{
		"topic": "first", "defaultTopic": "TBW102", "readQueueNums": "1", "writeQueueNums": "1", "perm": "6",
		"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}})
	if err != nil {
		return err
	}
	_, err = conn.Call(ctx, client.Request{Code: remoting.ReqSendMessageV2, Body: []byte("first message"), Fields: map[string]string{
		"a": "bench", "b": "first", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": strconv.FormatInt(time.Now().UnixMilli(), 10), "h": "0",
		"i": "", "j": "0", "k": "false", "m": "false",
	}})
	return err
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
	if s.broker.Process != nil {
		<-s.exited
	}
	if s.names != nil && s.names.Process != nil {
		_ = s.names.Wait()
	}
	if !keep {
		_ = os.RemoveAll(s.dir)
	}
}

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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

// The servers, in the order of the tables.
const (
	javaServer = "Java 5.5.0"
	ringServer = "ringmq"
	stubServer = "control"
)

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

// javaOptions are those of bin/runbroker.sh, but for the size of the heap and the log of the collector.
func javaOptions(heap string) []string {
	return []string{
		"-server", "-Xms" + heap, "-Xmx" + heap, "-Xmn" + half(heap), "-XX:+UseG1GC", "-XX:G1HeapRegionSize=16m", "-XX:G1ReservePercent=25",
		"-XX:InitiatingHeapOccupancyPercent=30", "-XX:SoftRefLRUPolicyMSPerMB=0", "-XX:-OmitStackTraceInFastThrow",
		"-XX:+AlwaysPreTouch", "-XX:MaxDirectMemorySize=15g", "-XX:-UseLargePages",
	}
}

// half of a size such as 4g or 512m.
func half(size string) string {
	n, err := strconv.Atoi(strings.TrimRight(size, "gGmM"))
	if err != nil || n < 1 {
		return size
	}
	if strings.HasSuffix(strings.ToLower(size), "g") {
		return strconv.Itoa(n*512) + "m"
	}
	return strconv.Itoa(n/2) + "m"
}

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
	s := &server{name: name, dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port), exited: make(chan struct{})}
	namesPort, err := freePort()
	if err != nil {
		return nil, err
	}
	switch name {
	case stubServer:
		s.broker = exec.Command(o.ringmq, "perf", "stub", "--listen", s.addr)
	case ringServer:
		conf := brokerConf(dir, port, namesPort, sync) + "metricsListen=127.0.0.1:0\n"
		if err := os.WriteFile(filepath.Join(dir, "broker.conf"), []byte(conf), 0o644); err != nil {
			return nil, err
		}
		s.broker = exec.Command(o.ringmq, "standalone", "-c", filepath.Join(dir, "broker.conf"), "--data", dir, "--namesrvPort", strconv.Itoa(namesPort))
	case javaServer:
		if err := o.javaCommands(s, port, namesPort, sync); err != nil {
			return nil, err
		}
	}
	for _, cmd := range []*exec.Cmd{s.names, s.broker} {
		if cmd == nil {
			continue
		}
		if err := begin(cmd, dir); err != nil {
			s.kill()
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
	}
	go func() {
		_ = s.broker.Wait()
		close(s.exited)
	}()
	return s, nil
}

// brokerConf is the same for both brokers: everything that is not named is each one's default.
func brokerConf(dir string, port, namesPort int, sync bool) string {
	flush := "ASYNC_FLUSH"
	if sync {
		flush = "SYNC_FLUSH"
	}
	return fmt.Sprintf("brokerName=bench\nbrokerIP1=127.0.0.1\nlistenPort=%d\nhaListenPort=%d\nnamesrvAddr=127.0.0.1:%d\nstorePathRootDir=%s\nflushDiskType=%s\n",
		port, port+1, namesPort, filepath.Join(dir, "store"), flush)
}

func (o *options) javaCommands(s *server, port, namesPort int, sync bool) error {
	files := map[string]string{
		"broker.conf":  brokerConf(s.dir, port, namesPort, sync) + "storePathCommitLog=" + filepath.Join(s.dir, "store", "commitlog") + "\n",
		"namesrv.conf": fmt.Sprintf("listenPort=%d\n", namesPort),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	java := func(options []string, class, conf string) *exec.Cmd {
		args := append(options, "-Duser.home="+s.dir, "-cp", filepath.Join(o.java, "*"), class, "-c", filepath.Join(s.dir, conf))
		cmd := exec.Command("java", args...)
		cmd.Env = append(cmd.Environ(), "ROCKETMQ_HOME="+s.dir)
		return cmd
	}
	s.names = java([]string{"-server", "-Xms512m", "-Xmx512m"}, "org.apache.rocketmq.namesrv.NamesrvStartup", "namesrv.conf")
	gc := "-Xlog:gc*=info,safepoint=info:file=" + filepath.Join(s.dir, "gc.log") + ":utctime,level,tags:filecount=5,filesize=30M"
	s.broker = java(append(javaOptions(o.heap), gc), "org.apache.rocketmq.broker.BrokerStartup", "broker.conf")
	return nil
}

// begin starts a command with its output in a file, in a process group of its own: an interrupt from the terminal comes to us, and
// we end it.
func begin(cmd *exec.Cmd, dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, "out.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
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

// ready waits until a send succeeds.
func (s *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		err := s.trySend(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("%s ended by itself, see %s", s.name, filepath.Join(s.dir, "out.log"))
		case <-ctx.Done():
			return fmt.Errorf("%s does not get ready: %w", s.name, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// trySend creates a topic and sends one message.
func (s *server) trySend(ctx context.Context) error {
	conn, err := client.Dial(ctx, s.addr, client.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
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

func (s *server) signal(sig os.Signal) {
	for _, cmd := range []*exec.Cmd{s.broker, s.names} {
		if cmd != nil && cmd.Process != nil {
			_ = cmd.Process.Signal(sig)
		}
	}
}

// kill ends the server and removes its store; after this, nothing of it is left but what was measured.
func (s *server) kill() {
	s.signal(syscall.SIGCONT)
	s.signal(os.Interrupt)
	s.signal(syscall.SIGTERM)
	if s.broker != nil && s.broker.Process != nil {
		select {
		case <-s.exited:
		case <-time.After(10 * time.Second):
			s.signal(os.Kill)
			<-s.exited
		}
	}
	if s.names != nil && s.names.Process != nil {
		_ = s.names.Process.Kill()
		_ = s.names.Wait()
	}
	_ = os.RemoveAll(s.dir)
}

// fetchJava gets Apache RocketMQ from Maven Central, unless the folder has it.
func fetchJava(ctx context.Context, dir string) error {
	if found, _ := filepath.Glob(filepath.Join(dir, "rocketmq-broker-*.jar")); len(found) > 0 {
		return nil
	}
	fmt.Println("fetching Apache RocketMQ 5.5.0 with Maven")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", "benchmarks/java/pom.xml", "dependency:copy-dependencies", "-DoutputDirectory="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mvn: %w (or give a folder that has the jars with --java-lib)", err)
	}
	return nil
}

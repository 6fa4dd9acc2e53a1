// Package program starts and stops the programs of the end-to-end suite: the original Java name server and broker,
// ringmq, and the client programs. Everything lives in one temporary folder, listens on free loopback ports and is
// stopped by its process id; a program whose starter dies is killed by the kernel.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is one started program. Its output goes to a file in the log folder.
type Process struct {
	Name    string
	LogPath string
	cmd     *exec.Cmd
	done    chan struct{}
	waitErr error // written before done is closed
}

var (
	liveMu sync.Mutex
	live   = map[*Process]struct{}{}
)

// StopAll kills what is still running: the last line of defence on a failure or an interrupt.
func StopAll() {
	liveMu.Lock()
	all := make([]*Process, 0, len(live))
	for p := range live {
		all = append(all, p)
	}
	liveMu.Unlock()
	for _, p := range all {
		p.Kill()
	}
}

// Start runs a program in the background, in logDir, with its output in logDir/name.log.
func Start(logDir, name string, env []string, path string, args ...string) (*Process, error) {
	logPath := filepath.Join(logDir, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Process{Name: name, LogPath: logPath, done: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir = logDir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := startWithParent(p.cmd, p.done, &p.waitErr); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	liveMu.Lock()
	live[p] = struct{}{}
	liveMu.Unlock()
	go func() {
		<-p.done
		liveMu.Lock()
		delete(live, p)
		liveMu.Unlock()
	}()
	return p, nil
}

// startWithParent starts cmd on a thread that lives until the program ends: the kernel sends the death signal when the
// starting *thread* ends, so it must not be one the Go scheduler retires early.
func startWithParent(cmd *exec.Cmd, done chan struct{}, waitErr *error) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			*waitErr = cmd.Wait()
			close(done)
		}
	}()
	return <-started
}

// Pid of the program.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Running tells whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Stop asks with SIGTERM and waits; after the limit it kills and says so.
func (p *Process) Stop(limit time.Duration) error {
	if !p.Running() {
		return fmt.Errorf("%s had already ended: %v", p.Name, p.waitErr)
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("%s did not stop within %v of SIGTERM and was killed", p.Name, limit)
	}
}

// Kill is kill -9.
func (p *Process) Kill() {
	if p.Running() {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// WaitPort waits until the program accepts connections on the address, or ends, or the limit passes.
func (p *Process) WaitPort(addr string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		if !p.Running() {
			return fmt.Errorf("%s ended before it listened on %s: %v\n%s", p.Name, addr, p.waitErr, Tail(p.LogPath, 40))
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not listen on %s after %v\n%s", p.Name, addr, limit, Tail(p.LogPath, 40))
}

// Run executes a program to its end, in logDir, with its output copied to out line by line and kept in logDir/name.log.
func Run(ctx context.Context, out io.Writer, logDir, name string, env []string, path string, args ...string) error {
	logPath := filepath.Join(logDir, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = logDir // mqadmin's consumerStatus writes into the working directory
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout = io.MultiWriter(&quiet{out: out}, log)
	cmd.Stderr = log
	done := make(chan struct{})
	var waitErr error
	if err := startWithParent(cmd, done, &waitErr); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	<-done
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) {
		return fmt.Errorf("%s: exit status %d", name, exit.ExitCode())
	}
	return waitErr
}

// quiet passes whole lines on, except logging chatter.
type quiet struct {
	out  io.Writer
	part []byte
}

func (q *quiet) Write(b []byte) (int, error) {
	q.part = append(q.part, b...)
	if end := bytes.LastIndexByte(q.part, '\n'); end >= 0 {
		lines := withoutChatter(q.part[:end+1])
		q.part = append(q.part[:0], q.part[end+1:]...)
		if len(bytes.TrimSpace(lines)) > 0 {
			if _, err := q.out.Write(lines); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

// Tail returns the last lines of a file, for failure reports.
func Tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	b = withoutChatter(b)
	for i, n := len(b)-1, 0; i >= 0; i-- {
		if b[i] == '\n' {
			if n++; n > lines {
				return string(b[i+1:])
			}
		}
	}
	return string(bytes.TrimSpace(b))
}

// withoutChatter drops the lines in which Java's logging library tells how it configured itself.
func withoutChatter(b []byte) []byte {
	var out []byte
	for line := range bytes.Lines(b) {
		if !bytes.Contains(line, []byte("|-INFO in ")) && !bytes.Contains(line, []byte("|-WARN in ")) {
			out = append(out, line...)
		}
	}
	return out
}

// FreePort finds a port p on loopback such that p-2 (the fast port) and p+1 (HA) are free too.
func FreePort() (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		ok := port > 2000 && port < 65000
		for _, near := range []int{port - 2, port + 1} {
			n, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", near))
			if err != nil {
				ok = false
				continue
			}
			n.Close()
		}
		l.Close()
		if ok {
			return port, nil
		}
	}
	return 0, errors.New("no three free neighbouring ports on loopback after 100 tries")
}

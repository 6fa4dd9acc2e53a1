package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ringmq/ringmq/e2e/go/program"
)

// clientParts are the client programs that share one running target; each can be named in -only.
var clientParts = []string{"java-json", "java-rocketmq", "java-tls", "go", "java-alone"}

// clients runs the official Java and Go clients against one running target.
func (s *suite) clients(ctx context.Context) error {
	data := filepath.Join(s.dir, "clients")
	c, err := s.start(s.target, "clients", data, program.Props{"mappedFileSizeCommitLog": fmt.Sprint(64 << 20)})
	if c != nil {
		defer c.kill()
	}
	if err != nil {
		return err
	}
	all := len(s.only) == 0 || s.named("clients")
	for _, name := range clientParts {
		if !all && !s.named(name) {
			continue
		}
		var err error
		switch name {
		case "java-json":
			_, err = s.runJava(ctx, name, nil, "Suite", c.nameServer, c.broker, "java-json-")
		case "java-rocketmq":
			_, err = s.runJava(ctx, name, []string{"-Drocketmq.serialize.type=ROCKETMQ"}, "Suite", c.nameServer, c.broker, "java-rocketmq-")
		case "java-tls":
			_, err = s.runJava(ctx, name, []string{"-Dtls.enable=true"}, "Suite", c.nameServer, c.broker, "java-tls-",
				"send-sync", "send-async", "send-body-3MiB", "push-tags", "push-clustering-two-consumers-rebalance",
				"lite-pull-assign-seek-commit", "query-by-key")
		case "go":
			_, err = s.runClient(ctx, name, s.goClients, "-n", c.nameServer, "-b", c.broker)
		case "java-alone": // last, because the original's default topic keeps the changed permission
			_, err = s.runJava(ctx, name, nil, "Suite", c.nameServer, c.broker, "java-json-",
				"alone-refuse-unknown-topic-with-autocreate-off-code-17")
		}
		if err != nil {
			s.fail(name, err)
		}
		if dead := slices.IndexFunc(c.processes, func(p *program.Process) bool { return !p.Running() }); dead >= 0 {
			p := c.processes[dead]
			return fmt.Errorf("%s ended while %s ran against it\n%s", p.Name, name, program.Tail(p.LogPath, 40))
		}
	}
	return c.stop()
}

// mqadmin runs the original command line tool; it changes permissions of all topics, so it has a target of its own.
func (s *suite) mqadmin(ctx context.Context) error {
	c, err := s.start(s.target, "mqadmin-target", filepath.Join(s.dir, "mqadmin"), nil)
	if c != nil {
		defer c.kill()
	}
	if err != nil {
		return err
	}
	if _, err := s.runJava(ctx, "mqadmin", nil, "Admin", c.nameServer, c.broker); err != nil {
		return err
	}
	return c.stop()
}

// nameServer runs an original broker under the tested name server.
func (s *suite) nameServer(ctx context.Context) error {
	ns, err := program.FreePort()
	if err != nil {
		return err
	}
	var p *program.Process
	if s.target == "ringmq" {
		p, err = program.Ringmq{Binary: s.ringmq, Dir: s.dir}.StartNameServer("nameserver", ns)
	} else {
		p, err = s.java.StartNameServer("nameserver", ns, nil)
	}
	if p != nil {
		defer p.Kill()
	}
	if err != nil {
		return err
	}
	port, err := program.FreePort()
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", ns)
	broker, err := s.java.StartBroker("nameserver-java-broker", brokerProps(filepath.Join(s.dir, "nameserver-store")).With(program.Props{
		"listenPort": fmt.Sprint(port), "haListenPort": fmt.Sprint(port + 1), "namesrvAddr": address,
	}))
	if broker != nil {
		defer broker.Kill()
	}
	if err != nil {
		return err
	}
	_, err = s.runJava(ctx, "nameserver-clients", nil, "NameServer", address, fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprint(broker.Pid()))
	return err
}

// exchange lets one broker write a store and another open it, both ways, after a clean stop and after kill -9.
func (s *suite) exchange(ctx context.Context) error {
	var errs []error
	for _, way := range []struct{ writer, reader string }{{"java", s.target}, {s.target, "java"}} {
		for _, end := range s.ends(way.writer) {
			if err := s.exchangeOnce(ctx, way.writer, way.reader, end); err != nil {
				errs = append(errs, err)
			}
		}
		if s.target == "java" {
			break // the other way round would be the same
		}
	}
	return errors.Join(errs...)
}

// ending is how a writer ends, and what is done with its store before another broker opens it.
type ending struct {
	name    string
	killed  bool
	recover bool          // with `ringmq recover`
	conf    program.Props // of the writer
}

// ends are those of a writer. What ringmq's default engine had only in its own file when it was killed a Java broker does not find.
func (s *suite) ends(writer string) []ending {
	list := []ending{{name: "clean"}}
	if writer == "ringmq" {
		return append(list, ending{name: "killed-recovered", killed: true, recover: true},
			ending{name: "killed-mmap", killed: true, conf: program.Props{"ioEngine": "mmap"}})
	}
	return append(list, ending{name: "killed", killed: true})
}

func (s *suite) exchangeOnce(ctx context.Context, writer, reader string, end ending) error {
	verify := "verify"
	if end.killed {
		verify = "verify-killed"
	}
	name := fmt.Sprintf("exchange-%s-to-%s-%s", writer, reader, end.name)
	data := filepath.Join(s.dir, name)
	note := filepath.Join(s.dir, name+".note")
	small := program.Props{
		"mappedFileSizeCommitLog":    fmt.Sprint(1 << 20),
		"mappedFileSizeConsumeQueue": "2000",
	}
	first, err := s.start(writer, name+"-writer", data, small.With(end.conf))
	if first != nil {
		defer first.kill()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	failed, err := s.runJava(ctx, name+"-write", nil, "StoreCheck", "write", first.nameServer, first.broker, note, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if failed > 0 {
		return fmt.Errorf("%s: nothing to verify: the writing failed", name)
	}
	if end.killed {
		first.kill()
	} else if err := first.stop(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if end.recover {
		if err := (program.Ringmq{Binary: s.ringmq, Dir: s.dir}).Recover(ctx, filepath.Join(data, "store"), small); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	second, err := s.start(reader, name+"-reader", data, small)
	if second != nil {
		defer second.kill()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	failed, err = s.runJava(ctx, name+"-verify", nil, "StoreCheck", verify, second.nameServer, second.broker, note, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if failed > 0 {
		for _, p := range second.processes {
			fmt.Printf("--- end of %s\n%s\n", p.LogPath, strings.TrimSpace(program.Tail(p.LogPath, 15)))
		}
	}
	return nil
}

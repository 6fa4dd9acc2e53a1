// driver starts the programs that a run needs, in a temporary folder and on free ports, runs the client programs
// against them, prints one line a scenario, and stops everything it started.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ringmq/ringmq/e2e/go/program"
)

func main() {
	if err := run(); err != nil {
		program.StopAll()
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	program.StopAll()
}

func run() error {
	var (
		target    = flag.String("target", "ringmq", "what is tested: ringmq or java")
		classPath = flag.String("classpath", "", "official jars and the compiled Java programs")
		ringmq    = flag.String("ringmq", "", "the ringmq binary (target ringmq)")
		clients   = flag.String("goclients", "", "the compiled Go client program")
		only      = flag.String("only", "", "comma list of parts to run; empty means all")
		goldenOut = flag.String("golden", "", "make the golden files in this folder instead of testing")
		keep      = flag.Bool("keep", false, "keep the temporary folder")
	)
	flag.Parse()
	dir, err := os.MkdirTemp("", "ringmq-e2e-")
	if err != nil {
		return err
	}
	// The programs run in that folder, so what was named relative to this one is made absolute.
	for _, path := range []*string{&dir, ringmq, clients, goldenOut} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "home"), 0o755); err != nil {
		return err
	}
	s := &suite{
		target: *target, dir: dir, ringmq: *ringmq, goClients: *clients,
		java: program.Java{ClassPath: *classPath, Dir: dir},
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	result := make(chan error, 1)
	go func() {
		if *goldenOut != "" {
			result <- s.golden(*goldenOut)
		} else {
			result <- s.run()
		}
	}()
	select {
	case err = <-result:
	case sig := <-interrupted:
		err = fmt.Errorf("interrupted by %v", sig)
	}
	program.StopAll()
	if err == nil && !*keep {
		return os.RemoveAll(dir)
	}
	fmt.Fprintln(os.Stderr, "e2e: logs and data are kept in", dir)
	return err
}

//go:build linux

package main

import (
	"context"
	"time"
)

// The moments at which memory is looked at.
const (
	idle       = "idle"
	afterLoads = "after the loads"
)

// idleAfter is how long after the first send a server counts as idle: what it prepares in the background is there then.
const idleAfter = 2 * time.Second

// startRounds is enough: a start is long, and differs little from the next.
const startRounds = 3

// starting lists what is started.
func (o *options) starting() (names []string) {
	for _, name := range o.taking(false) {
		if name == javaServer {
			names = append(names, javaServer, lazyServer)
			continue
		}
		names = append(names, name)
	}
	return names
}

// starts measures the time from exec to the first acknowledged send with an empty store, and the memory of a server that has had
// nothing else to do.
func (b *bench) starts(ctx context.Context) error {
	if !b.wants("start", true) {
		return nil
	}
	rounds := min(b.pairs, startRounds)
	if b.quick {
		rounds = 1
	}
	for round := range rounds {
		for _, name := range turns(b.starting(), round) {
			if err := b.start(ctx, name, round); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) start(ctx context.Context, name string, round int) (err error) {
	began := time.Now()
	s, err := b.launch(name, false)
	if err != nil {
		return err
	}
	defer func() { s.end(err != nil && ctx.Err() == nil) }()
	answered, err := s.ready(ctx)
	if err != nil {
		return err
	}
	sent := time.Now()
	one := started{name, round, answered.Sub(began).Seconds() * 1e3, sent.Sub(began).Seconds() * 1e3}
	b.started = append(b.started, one)
	b.say("round %d  start       %s: port %.0f ms, first send %.0f ms", round+1, name, one.PortMillis, one.SendMillis)
	if err := wait(ctx, idleAfter); err != nil {
		return err
	}
	b.remember(s, idle, round)
	return nil
}

func (b *bench) remember(s *server, when string, round int) {
	status := readStatus(s.pid())
	b.memory = append(b.memory, memory{
		Server: s.name, When: when, Round: round, RSS: status["VmRSS"], Anon: status["RssAnon"], File: status["RssFile"] + status["RssShmem"],
	})
}

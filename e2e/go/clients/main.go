// clients runs the official Go client (rocketmq-client-go v2) against a name server and its broker, one line a scenario.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

func main() {
	var (
		nameServer = flag.String("n", "", "name server address")
		broker     = flag.String("b", "", "broker address, to create topics on")
		golden     = flag.Bool("golden", false, "only make the traffic that the golden frames need")
	)
	flag.Parse()
	rlog.SetLogLevel("error")
	r := &run{nameServer: *nameServer, broker: *broker, stamp: fmt.Sprintf("%x", time.Now().UnixNano()&0xffffff)}
	scenarios := []scenario{
		{"go-send-sync", sendSync},
		{"go-send-async", sendAsync},
		{"go-send-oneway", sendOneway},
		{"go-send-batch", sendBatch},
		{"go-push-clustering-two-consumers", pushClustering},
		{"go-push-tags", pushTags},
		{"go-push-orderly", pushOrderly},
		{"go-push-retry", pushRetry},
		{"go-pull", pull},
		{"go-large-body", largeBody},
	}
	if *golden {
		scenarios = []scenario{{"go-send-batch", sendBatch}, {"go-push-tags", pushTags}, {"go-push-orderly", pushOrderly}}
	}
	failed := 0
	for _, s := range scenarios {
		begin := time.Now()
		err := s.run(r)
		if err != nil {
			failed++
			fmt.Printf("FAIL %s %s\n", s.name, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Printf("ok %s (%d ms)\n", s.name, time.Since(begin).Milliseconds())
	}
	if failed > 0 {
		os.Exit(1)
	}
}

type scenario struct {
	name string
	run  func(*run) error
}

// run is what the scenarios share; stamp makes their topics and groups new in every run.
type run struct {
	nameServer string
	broker     string
	stamp      string
}

func (r *run) topic(name string) string { return "Go_" + name + "_" + r.stamp }
func (r *run) group(name string) string { return "go_" + name + "_" + r.stamp }

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ringmq/ringmq/e2e/go/program"
	"github.com/ringmq/ringmq/e2e/go/wiretap"
)

// golden makes the files of e2e/golden: the original broker and name server listen on 127.0.0.2, and the recording proxy
// on the same ports of 127.0.0.1, which is what clients are told.
func (s *suite) golden(out string) error {
	frames := filepath.Join(out, "frames")
	if err := os.RemoveAll(out + "/frames"); err != nil {
		return err
	}
	for _, d := range []string{"store-clean", "store-killed"} {
		if err := os.RemoveAll(filepath.Join(out, d)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(frames, 0o755); err != nil {
		return err
	}
	rec := wiretap.NewRecorder(frames)
	ns, err := s.tapPort(rec, "")
	if err != nil {
		return err
	}
	nsForBroker, err := s.tapTo(rec, ns, "broker")
	if err != nil {
		return err
	}
	br, err := s.tapPort(rec, "")
	if err != nil {
		return err
	}
	nameServer, err := s.java.StartNameServer("golden-namesrv", ns, program.Props{"bindAddress": "127.0.0.2"})
	if err != nil {
		return err
	}
	defer nameServer.Kill()
	store := filepath.Join(s.dir, "golden-store")
	if err := seedLongGroup(store); err != nil {
		return err
	}
	conf := tinyStore(store).With(program.Props{
		"listenPort":   fmt.Sprint(br),
		"haListenPort": fmt.Sprint(br + 1),
		"bindAddress":  "127.0.0.2",
		"namesrvAddr":  fmt.Sprintf("127.0.0.1:%d", nsForBroker),
	})
	broker, err := s.java.StartBroker("golden-broker", conf)
	if err != nil {
		return err
	}
	defer broker.Kill()
	addr := fmt.Sprintf("127.0.0.1:%d", ns)
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	quick := "-Drocketmq.client.rebalance.waitInterval=1000"
	run := func(label string, defines []string, args ...string) error {
		rec.Label(label)
		return program.Run(ctx, os.Stdout, s.dir, "golden-"+label, s.java.Env(), "java",
			s.java.Args("256m", append(defines, quick), "ringmq.e2e."+args[0], args[1:]...)...)
	}
	if err := run("java-json", nil, "Golden", addr, "full"); err != nil {
		return err
	}
	time.Sleep(6 * time.Second) // consumer offsets go to disk every five seconds
	if err := broker.Stop(60 * time.Second); err != nil {
		return err
	}
	if err := s.keepAndDump(ctx, store, filepath.Join(out, "store-clean"), conf); err != nil {
		return err
	}
	broker, err = s.java.StartBroker("golden-broker-2", conf)
	if err != nil {
		return err
	}
	defer broker.Kill()
	if err := run("java-rocketmq", []string{"-Drocketmq.serialize.type=ROCKETMQ"}, "Golden", addr, "short"); err != nil {
		return err
	}
	rec.Label("go")
	if err := program.Run(ctx, os.Stdout, s.dir, "golden-go", nil, s.goClients, "-n", addr, "-golden"); err != nil {
		return err
	}
	if err := run("mqadmin", nil, "Admin", addr, "127.0.0.1:"+fmt.Sprint(br), "golden"); err != nil {
		fmt.Println("golden: mqadmin:", err) // frames of the commands that passed are kept
	}
	time.Sleep(time.Second)
	broker.Kill()
	if err := s.keepAndDump(ctx, store, filepath.Join(out, "store-killed"), conf); err != nil {
		return err
	}
	door, err := s.tapTo(rec, ns, "broker-compressed")
	if err != nil {
		return err
	}
	broker, err = s.java.StartBroker("golden-broker-3", conf.With(program.Props{
		"compressedRegister": "true", "namesrvAddr": fmt.Sprintf("127.0.0.1:%d", door),
	}))
	if err != nil {
		return err
	}
	registration := filepath.Join(frames, "broker-compressed-103-register-broker-request.bin")
	for range 600 {
		if _, err = os.Stat(registration); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // its reply
	return broker.Stop(60 * time.Second)
}

// seedLongGroup writes the group whose retry topic is longer than 127 bytes, so that a record has the second message
// version. The group could not be made by a request: groups have at most 120 bytes, which only the file can evade.
func seedLongGroup(store string) error {
	if err := os.MkdirAll(filepath.Join(store, "config"), 0o755); err != nil {
		return err
	}
	group := "golden-long-" + strings.Repeat("g", 120)
	text := fmt.Sprintf(`{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":0},"subscriptionGroupTable":{%q:{"groupName":%q}}}`, group, group)
	return os.WriteFile(filepath.Join(store, "config", "subscriptionGroup.json"), []byte(text), 0o644)
}

func (s *suite) tapPort(rec *wiretap.Recorder, label string) (int, error) {
	port, err := program.FreePort()
	if err != nil {
		return 0, err
	}
	_, err = rec.Tap(fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.2:%d", port), label)
	return port, err
}

// tapTo opens one more door to the same program, so that a speaker is known by the door it took.
func (s *suite) tapTo(rec *wiretap.Recorder, port int, label string) (int, error) {
	door, err := program.FreePort()
	if err != nil {
		return 0, err
	}
	_, err = rec.Tap(fmt.Sprintf("127.0.0.1:%d", door), fmt.Sprintf("127.0.0.2:%d", port), label)
	return door, err
}

// tinyStore makes every store file small enough to be kept whole in the repository.
func tinyStore(dir string) program.Props {
	return brokerProps(dir).With(program.Props{
		"brokerClusterName":          "golden-cluster",
		"brokerName":                 "golden-broker",
		"mappedFileSizeCommitLog":    "16384",
		"mappedFileSizeConsumeQueue": "1000",
		"maxHashSlotNum":             "101",
		"maxIndexNum":                "400",
	})
}

// keepAndDump copies the store and notes beside it what the official decoder reads in its commit log.
func (s *suite) keepAndDump(ctx context.Context, from, to string, conf program.Props) error {
	if err := keepStore(from, to, conf); err != nil {
		return err
	}
	f, err := os.Create(to + ".records.jsonl")
	if err != nil {
		return err
	}
	defer f.Close()
	return program.Run(ctx, f, s.dir, "golden-dump", s.java.Env(), "java", s.java.Args("128m", nil, "ringmq.e2e.Dump", to)...)
}

// keepStore copies the store without what is not part of it.
func keepStore(from, to string, conf program.Props) error {
	err := filepath.Walk(from, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if info.IsDir() && info.Name() == "rocksdbstore" {
			return filepath.SkipDir // empty, and made by the original whether it is used or not
		}
		if info.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		if info.Size() > 256<<10 {
			fmt.Printf("golden: left out %s (%d bytes)\n", rel, info.Size())
			return nil
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		defer src.Close()
		f, err := os.Create(dst)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, src); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	})
	if err != nil {
		return err
	}
	kept := program.Props{}
	for _, k := range []string{"brokerClusterName", "brokerName", "brokerId", "messageDelayLevel", "mappedFileSizeCommitLog",
		"mappedFileSizeConsumeQueue", "maxHashSlotNum", "maxIndexNum"} {
		kept[k] = conf[k]
	}
	return kept.Write(filepath.Join(to, "broker.conf"))
}

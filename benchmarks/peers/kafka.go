//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// kafkaVersion is the one that benchmarks/kafka/pom.xml names.
const kafkaVersion = "4.1.0"

// fetchKafka gets Apache Kafka from Maven Central, unless the folder has it.
func (o *options) fetchKafka(ctx context.Context) error {
	return o.fetchJars(ctx, "Apache Kafka "+kafkaVersion, o.kafka, "kafka_2.13-"+kafkaVersion+".jar", "benchmarks/kafka/pom.xml")
}

// kafkaOptions are those of bin/kafka-server-start.sh and bin/kafka-run-class.sh.
var kafkaOptions = []string{
	"-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
	"-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
}

// kafkaConf is the distribution's config/server.properties, with ports and folders of our own and one broker that is its own
// controller. A broker that is stopped while others have their turn must not lose its session; one that is killed and comes back has to.
func kafkaConf(dir string, port, controllerPort int, sc *scenario) string {
	text := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=%[3]s
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=%[4]d
`, port, controllerPort, filepath.Join(dir, "store"), kafkaCheckMillis(sc))
	if sc.run == nil {
		text += "broker.session.timeout.ms=3600000\n"
	}
	if sc.sync {
		text += "log.flush.interval.messages=1\n"
	}
	return text
}

// kafkaCheckMillis is the distribution's, but for the run in which old segments are to go meanwhile.
func kafkaCheckMillis(sc *scenario) int {
	if sc.name == longName {
		return 10_000
	}
	return 300_000
}

// kafkaCommand formats the storage of a fresh broker, too.
func (s *server) kafkaCommand(o *options, port, controllerPort int, sc *scenario) error {
	s.protocol = "kafka"
	conf := filepath.Join(s.dir, "server.properties")
	if err := os.WriteFile(conf, []byte(kafkaConf(s.dir, port, controllerPort, sc)), 0o644); err != nil {
		return err
	}
	jars := filepath.Join(o.kafka, "*")
	if _, err := os.Stat(filepath.Join(s.dir, "store", "meta.properties")); err != nil {
		format := exec.Command("java", "-cp", jars, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", conf)
		if text, err := format.CombinedOutput(); err != nil {
			return fmt.Errorf("format Kafka's storage: %w: %s", err, text)
		}
	}
	args := append([]string{"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"}, kafkaOptions...)
	s.broker = exec.Command("java", append(args, "-cp", jars, "kafka.Kafka", conf)...)
	return nil
}

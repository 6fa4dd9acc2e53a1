package program

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Java knows how to run the official jars: the class path and folders that keep them from writing into $HOME.
type Java struct {
	ClassPath string // jars fetched by Maven plus our compiled test programs
	Dir       string // temporary folder: logs, home
}

// Props is a .properties file.
type Props map[string]string

// With returns a copy with more properties; later ones win.
func (p Props) With(more Props) Props {
	out := Props{}
	for k, v := range p {
		out[k] = v
	}
	for k, v := range more {
		out[k] = v
	}
	return out
}

// Write stores the properties in a file.
func (p Props) Write(path string) error {
	keys := make([]string, 0, len(p))
	for k := range p {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%s=%s\n", k, p[k])
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// Args builds the JVM command line. The home and log folders are private to the run.
func (j Java) Args(heap string, defines []string, main string, args ...string) []string {
	out := []string{
		"-Xms64m", "-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData",
		"-Duser.home=" + filepath.Join(j.Dir, "home"),
		"-Drocketmq.log.root=" + filepath.Join(j.Dir, "home", "clientlogs"),
		"-Drocketmq.home.dir=" + filepath.Join(j.Dir, "home"),
		"-Djava.io.tmpdir=" + j.Dir,
		"--add-exports=java.base/sun.security.x509=ALL-UNNAMED", // netty makes the server's test certificate with it
		"--add-opens=java.base/sun.security.x509=ALL-UNNAMED",
	}
	out = append(out, defines...)
	out = append(out, "-cp", j.ClassPath, main)
	return append(out, args...)
}

// Env for the Java programs.
func (j Java) Env() []string {
	return []string{"ROCKETMQ_HOME=" + filepath.Join(j.Dir, "home"), "NAMESRV_ADDR="}
}

// StartNameServer runs the original name server. conf may bind another address than 127.0.0.1.
func (j Java) StartNameServer(name string, port int, conf Props) (*Process, error) {
	bind := "127.0.0.1"
	if b := conf["bindAddress"]; b != "" {
		bind = b
	}
	file := filepath.Join(j.Dir, name+".conf")
	conf = conf.With(Props{
		"listenPort":      fmt.Sprint(port),
		"bindAddress":     bind,
		"kvConfigPath":    filepath.Join(j.Dir, name+"-kvConfig.json"),
		"configStorePath": filepath.Join(j.Dir, name+".properties"),
	})
	if err := conf.Write(file); err != nil {
		return nil, err
	}
	p, err := Start(j.Dir, name, j.Env(), "java",
		j.Args("256m", nil, "org.apache.rocketmq.namesrv.NamesrvStartup", "-c", file)...)
	if err != nil {
		return nil, err
	}
	return p, p.WaitPort(fmt.Sprintf("%s:%d", bind, port), 60*time.Second)
}

// StartBroker runs the original broker with the given properties, which name its listenPort.
func (j Java) StartBroker(name string, conf Props, defines ...string) (*Process, error) {
	file := filepath.Join(j.Dir, name+".conf")
	if err := conf.Write(file); err != nil {
		return nil, err
	}
	defines = append([]string{"-XX:MaxDirectMemorySize=512m"}, defines...)
	p, err := Start(j.Dir, name, j.Env(), "java",
		j.Args("768m", defines, "org.apache.rocketmq.broker.BrokerStartup", "-c", file)...)
	if err != nil {
		return nil, err
	}
	bind := conf["bindAddress"]
	if bind == "" {
		bind = "127.0.0.1"
	}
	return p, p.WaitPort(bind+":"+conf["listenPort"], 90*time.Second)
}

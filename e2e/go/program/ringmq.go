package program

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// Ringmq runs the tested binary.
type Ringmq struct {
	Binary string
	Dir    string // temporary folder: logs, configuration
}

// StartStandalone runs name server and broker in one process. conf names the broker's listenPort and storePathRootDir,
// which is the folder store under data.
func (r Ringmq) StartStandalone(name string, nameServerPort int, data string, conf Props) (*Process, error) {
	file := filepath.Join(r.Dir, name+".conf")
	conf = conf.With(Props{"metricsListen": "127.0.0.1:0"})
	if err := conf.Write(file); err != nil {
		return nil, err
	}
	p, err := Start(r.Dir, name, nil, r.Binary, "standalone", "-c", file, "--data", data,
		"--namesrvPort", fmt.Sprint(nameServerPort))
	if err != nil {
		return nil, err
	}
	if err := p.WaitPort(fmt.Sprintf("127.0.0.1:%d", nameServerPort), 20*time.Second); err != nil {
		return p, err
	}
	return p, p.WaitPort("127.0.0.1:"+conf["listenPort"], 20*time.Second)
}

// Recover runs `ringmq recover` on a store.
func (r Ringmq) Recover(ctx context.Context, store string, conf Props) error {
	args := []string{"recover", "--store", store}
	for key, value := range conf {
		args = append(args, "--"+key+"="+value)
	}
	if out, err := exec.CommandContext(ctx, r.Binary, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ringmq recover: %w\n%s", err, out)
	}
	return nil
}

// StartNameServer runs the name server alone.
func (r Ringmq) StartNameServer(name string, port int) (*Process, error) {
	file := filepath.Join(r.Dir, name+".conf")
	conf := Props{
		"listenPort":      fmt.Sprint(port),
		"bindAddress":     "127.0.0.1",
		"kvConfigPath":    filepath.Join(r.Dir, name+"-kvConfig.json"),
		"configStorePath": filepath.Join(r.Dir, name+".properties"),
	}
	if err := conf.Write(file); err != nil {
		return nil, err
	}
	p, err := Start(r.Dir, name, nil, r.Binary, "nameserver", "-c", file)
	if err != nil {
		return nil, err
	}
	return p, p.WaitPort(fmt.Sprintf("127.0.0.1:%d", port), 20*time.Second)
}

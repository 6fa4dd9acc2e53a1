package perf

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ServerUse is what a process used during the measured time. Memory is in bytes, as of the end; the peaks are of the run.
type ServerUse struct {
	PID              int     `json:"pid"`
	Seconds          float64 `json:"seconds"`
	UserSeconds      float64 `json:"userSeconds"`
	SystemSeconds    float64 `json:"systemSeconds"`
	MicrosPerMessage float64 `json:"microsPerMessage"`
	Voluntary        int64   `json:"voluntarySwitches"`
	Involuntary      int64   `json:"involuntarySwitches"`
	SwitchesPerMsg   float64 `json:"switchesPerMessage"`
	VoluntaryPerMsg  float64 `json:"voluntaryPerMessage"`
	RSS              int64   `json:"rss"`
	RSSAnon          int64   `json:"rssAnon"`
	RSSFile          int64   `json:"rssFile"`
	RSSPeak          int64   `json:"rssPeak"`
	RSSAnonPeak      int64   `json:"rssAnonPeak"`
	Threads          int64   `json:"threads"`
}

// serverWatch reads /proc of the server. All methods of a nil *serverWatch do nothing.
type serverWatch struct {
	pid      int
	from, to *usage
	anonPeak int64
}

type usage struct {
	at                     time.Time // of user and system
	user, system           float64
	voluntary, involuntary int64
	memory                 map[string]int64
}

// ticksPerSecond is USER_HZ, 100 on every Linux that Go runs on.
const ticksPerSecond = 100

func watchServer(pid int) (*serverWatch, error) {
	if pid == 0 {
		return nil, nil
	}
	if _, err := readUsage(pid); err != nil {
		return nil, fmt.Errorf("--server-pid %d: %w", pid, err)
	}
	return &serverWatch{pid: pid}, nil
}

func (w *serverWatch) begin() {
	if w != nil && w.from == nil {
		w.from, _ = readUsage(w.pid)
	}
}

func (w *serverWatch) sample() {
	if w == nil || w.from == nil || w.to != nil {
		return
	}
	if status, err := readStatus(filepath.Join("/proc", strconv.Itoa(w.pid), "status")); err == nil {
		w.anonPeak = max(w.anonPeak, status["RssAnon"])
	}
}

func (w *serverWatch) end() {
	if w == nil || w.from == nil || w.to != nil {
		return
	}
	w.to, _ = readUsage(w.pid)
}

// use is what was used between begin and end; nil when the server was not there all the time. timed tells that the load went on
// for a fixed time. Then use per message is use per second by messages per second: on a busy machine begin and end come late,
// and what was used meanwhile belongs to other messages.
func (w *serverWatch) use(r *Report, timed bool) *ServerUse {
	if w == nil || w.from == nil || w.to == nil {
		return nil
	}
	u := &ServerUse{
		PID: w.pid, Seconds: w.to.at.Sub(w.from.at).Seconds(),
		UserSeconds: w.to.user - w.from.user, SystemSeconds: w.to.system - w.from.system,
		Voluntary: w.to.voluntary - w.from.voluntary, Involuntary: w.to.involuntary - w.from.involuntary,
		RSS: w.to.memory["VmRSS"], RSSAnon: w.to.memory["RssAnon"], RSSFile: w.to.memory["RssFile"],
		RSSPeak: w.to.memory["VmHWM"], RSSAnonPeak: max(w.anonPeak, w.to.memory["RssAnon"]), Threads: w.to.memory["Threads"],
	}
	messages := float64(r.Messages)
	if timed {
		messages = r.MessagesPerSecond * u.Seconds
	}
	if messages > 0 {
		u.MicrosPerMessage = (u.UserSeconds + u.SystemSeconds) * 1e6 / messages
		u.SwitchesPerMsg = float64(u.Voluntary+u.Involuntary) / messages
		u.VoluntaryPerMsg = float64(u.Voluntary) / messages
	}
	return u
}

// readUsage sums context switches over the threads: the process's own line counts its first thread only. Threads that end between
// two readings take theirs with them.
func readUsage(pid int) (*usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return nil, err
	}
	// The command's name, in parentheses, may hold blanks.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("%s/stat has %d fields", dir, len(fields))
	}
	u := &usage{at: time.Now()}
	for at, seconds := range map[int]*float64{11: &u.user, 12: &u.system} {
		ticks, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s/stat: %w", dir, err)
		}
		*seconds = float64(ticks) / ticksPerSecond
	}
	if u.memory, err = readStatus(filepath.Join(dir, "status")); err != nil {
		return nil, err
	}
	tasks, _ := filepath.Glob(filepath.Join(dir, "task", "*", "status"))
	for _, task := range tasks {
		if status, err := readStatus(task); err == nil {
			u.voluntary += status["voluntary_ctxt_switches"]
			u.involuntary += status["nonvoluntary_ctxt_switches"]
		}
	}
	return u, nil
}

// readStatus reads the numbers of a status file; those with the unit kB become bytes.
func readStatus(file string) (map[string]int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	numbers := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			continue
		}
		if len(fields) == 2 && fields[1] == "kB" {
			n <<= 10
		}
		numbers[name] = n
	}
	return numbers, nil
}

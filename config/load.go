package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Source is where a process's values come from. Nothing here is read behind the caller's back: environment and flags
// are handed in.
type Source struct {
	// File is the properties file, empty for none. Run-time changes are written back to it.
	File string
	// FileMayMiss lets the start go on when File does not exist; the first run-time change creates it.
	FileMayMiss bool
	// Environ is the environment, as os.Environ returns it.
	Environ []string
	// Flags holds the properties given on the command line.
	Flags Flags
	// Log takes warnings about names; nil: they are dropped.
	Log *slog.Logger
}

// origin says which kind of source gave a value.
type origin uint8

const (
	fromDefault origin = iota
	fromTLSFile
	fromFile
	fromEnv
	fromFlag
)

var originNames = [...]string{"default", "tls.config.file", "file", "environment", "flag"}

// loader gathers the values of one process, weakest source first.
type loader struct {
	process string // as error and log texts call it
	dst     any    // pointer to the struct
	keys    map[string]Key
	origins map[string]origin
	log     *slog.Logger
	said    map[string]bool // names without effect that the log has already
	errs    []error         // all bad values are told at once
}

// load builds the live configuration of one process. settle fills in automatic values; fallbackFile, if not nil, names
// the file that keeps run-time changes of a process started without a file.
func load[T any](src Source, process string, settle func(*T) error, fallbackFile func(*T) string) (*Live[T], error) {
	snapshot := new(T)
	mustSetDefaults(snapshot)
	l := newLoader(snapshot, process, src.Log)
	l.readFile(src.File, src.FileMayMiss)
	l.readEnviron(src.Environ)
	l.readFlags(src.Flags)
	file := src.File
	if file == "" && fallbackFile != nil {
		file = fallbackFile(snapshot)
		l.readFile(file, true)
	}
	l.readTLSFile()
	if err := errors.Join(l.errs...); err != nil {
		return nil, err
	}
	if err := settle(snapshot); err != nil {
		return nil, fmt.Errorf("%s configuration: %w", process, err)
	}
	return newLive(snapshot, settle, l, file), nil
}

func newLoader(dst any, process string, log *slog.Logger) *loader {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &loader{process: process, dst: dst, keys: make(map[string]Key), origins: make(map[string]origin), said: make(map[string]bool), log: log}
	for _, k := range keysOf(dst) {
		l.keys[k.Name] = k
	}
	return l
}

func (l *loader) readFile(file string, mayMiss bool) {
	if file == "" {
		return
	}
	text, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) && mayMiss {
		return
	}
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("read configuration: %w", err))
		return
	}
	props, err := ParseProperties(text)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", file, err))
		return
	}
	for _, p := range props {
		l.take(p.Key, p.Value, fromFile, fmt.Sprintf("%s:%d", file, p.Line))
	}
}

// readBounded reads a file of at most MaxPropertiesSize bytes.
func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxPropertiesSize+1))
	if err == nil && len(text) > MaxPropertiesSize {
		err = fmt.Errorf("%s: %w", file, errTooLarge)
	}
	return text, err
}

// namesrvAddrEnv is the variable from which RocketMQ's own programs take the name servers; ours comes before it.
const namesrvAddrEnv = "NAMESRV_ADDR"

func (l *loader) readEnviron(environ []string) {
	byEnv := make(map[string]Key, len(l.keys))
	for _, k := range l.keys {
		byEnv[k.Env] = k
	}
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(entry, "=")
		switch k, known := byEnv[name]; {
		case known:
			l.take(k.Name, value, fromEnv, "environment variable "+name)
		case name == namesrvAddrEnv:
			if _, known := l.keys["namesrvAddr"]; known {
				l.take("namesrvAddr", value, fromDefault, "environment variable "+name)
			}
		case strings.HasPrefix(name, envPrefix):
			l.strangeEnv(name, value)
		}
	}
}

// strangeEnv speaks about a variable with our prefix that is none of this process's keys. Another process's key is
// passed over: standalone hands the same environment to both.
func (l *loader) strangeEnv(name, value string) {
	for _, k := range slices.Concat(BrokerKeys(), NameServerKeys()) {
		if k.Env == name {
			return
		}
	}
	for property := range withoutEffect() { // the names of refusals are among them
		if envName(property) == name {
			l.strangeName(property, value, "environment variable "+name)
			return
		}
	}
	l.log.Warn("unknown configuration name", "process", l.process, "name", name, "where", "environment")
}

func (l *loader) readFlags(flags Flags) {
	for name, value := range flags {
		l.take(name, value, fromFlag, "flag --"+name)
	}
}

// readTLSFile takes the tls.* keys that no stronger source gave from the file that tls.config.file names.
func (l *loader) readTLSFile() {
	const key = "tls.config.file"
	file := l.keys[key].text(l.dst)
	if file == "" {
		return
	}
	text, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) && l.origins[key] == fromDefault {
		return
	}
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("read %s: %w", key, err))
		return
	}
	props, err := ParseProperties(text)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", file, err))
		return
	}
	for _, p := range props {
		if strings.HasPrefix(p.Key, "tls.") {
			l.take(p.Key, p.Value, fromTLSFile, fmt.Sprintf("%s:%d", file, p.Line))
		}
	}
}

// take sets one value unless a stronger source has set it, or says what is wrong with its name or text.
func (l *loader) take(name, value string, from origin, where string) {
	k, known := l.keys[name]
	if !known {
		l.strangeName(name, value, where)
		return
	}
	if err := k.Check(value); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", where, err))
		return
	}
	if l.origins[name] > from {
		return
	}
	l.origins[name] = from
	if err := k.set(l.dst, value); err != nil {
		panic("BUG: a checked value is refused: " + err.Error())
	}
}

// strangeName speaks about a name that is not one of this process's keys: a warning, or an error where going on would
// silently leave out what the operator asked for.
func (l *loader) strangeName(name, value, where string) {
	if r, ok := refusals[name]; ok && !r.harmless(value) {
		l.errs = append(l.errs, fmt.Errorf("%s: %s=%s asks for what ringmq cannot do: %s", where, name, value, r.reason))
		return
	}
	if l.said[name] {
		return
	}
	l.said[name] = true
	if reason, ok := withoutEffect()[name]; ok {
		l.log.Info("configuration name without effect", "process", l.process, "name", name, "where", where, "reason", reason)
		return
	}
	if isOtherProcess(name) {
		l.log.Info("configuration name without effect", "process", l.process, "name", name, "where", where, "reason", "it belongs to another process")
		return
	}
	l.log.Warn("unknown configuration name", "process", l.process, "name", name, "where", where)
}

func isOtherProcess(name string) bool {
	named := func(k Key) bool { return k.Name == name }
	return slices.ContainsFunc(BrokerKeys(), named) || slices.ContainsFunc(NameServerKeys(), named)
}

// absolute makes a file's name independent of later changes of the working directory, and follows symbolic links, so
// that a rewrite replaces the file and not the link.
func absolute(file string) string {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}

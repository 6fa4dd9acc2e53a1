package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Exit statuses of "ringmq doctor". They are documented in docs/doctor.md.
const (
	ExitOK      = 0 // nothing, or notes only
	ExitWarning = 1 // at least one warning: the broker runs, but slower or with less safety than it could
	ExitFailure = 2 // at least one failure: the broker will not start, or will lose a promise
	ExitNoRun   = 3 // the doctor itself could not run
)

// State says how a finding matters.
type State string

// The states, mildest first.
const (
	OK      State = "ok"
	Note    State = "note"    // worth knowing; nothing is lost
	Warning State = "warning" // costs speed, or safety in some situations
	Failure State = "failure" // the broker will not start, or will lose a promise
)

// exitStatus is what a finding of this state makes of the command's exit status.
func (s State) exitStatus() int {
	switch s {
	case Warning:
		return ExitWarning
	case Failure:
		return ExitFailure
	}
	return ExitOK
}

// Finding is one thing that was looked at.
type Finding struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Found string `json:"found"` // the figure
	// Meaning is what it means for ringmq.
	Meaning string `json:"meaning"`
	// Cure is one command or setting a line, ready to copy. Empty only where State is ok.
	Cure       string `json:"cure,omitempty"`
	ExitStatus int    `json:"exitStatus"`
}

func newFinding(state State, name, found, meaning string, cure []string) Finding {
	return Finding{Name: name, State: state, Found: printable(found), Meaning: meaning, Cure: strings.Join(cure, "\n"), ExitStatus: state.exitStatus()}
}

// printable keeps what others named, such as a process, from commanding the reader's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '.'
	}, s)
}

func ok(name, found, meaning string) Finding { return newFinding(OK, name, found, meaning, nil) }

func note(name, found, meaning string, cure ...string) Finding {
	return newFinding(Note, name, found, meaning, cure)
}

func warning(name, found, meaning string, cure ...string) Finding {
	return newFinding(Warning, name, found, meaning, cure)
}

func failure(name, found, meaning string, cure ...string) Finding {
	return newFinding(Failure, name, found, meaning, cure)
}

// unseen is the finding where the system does not show what the check looks at.
func unseen(name, file string) Finding {
	return note(name, "not seen", "this system does not show "+file+": nothing is known about it",
		"run the doctor on the host itself, or with /proc and /sys mounted")
}

// Report is the result of an examination.
type Report struct {
	System     string        `json:"system"` // operating system, kernel and processor type
	StoreDir   string        `json:"storePathRootDir"`
	Counts     map[State]int `json:"counts"`
	ExitStatus int           `json:"exitStatus"` // the highest of the findings
	Findings   []Finding     `json:"findings"`
}

func (r *Report) add(findings ...Finding) {
	for _, f := range findings {
		r.Findings = append(r.Findings, f)
		r.Counts[f.State]++
		r.ExitStatus = max(r.ExitStatus, f.ExitStatus)
	}
}

// Summary is one line.
func (r *Report) Summary() string {
	return fmt.Sprintf("%d ok, notes: %d, warnings: %d, failures: %d", r.Counts[OK], r.Counts[Note], r.Counts[Warning], r.Counts[Failure])
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Widths of the table's columns: with its borders a line has 120 characters.
const (
	widthState   = 7
	widthName    = 20
	widthFound   = 31
	widthMeaning = 49
)

// Print writes the table for people, and below it the cures: these are to be copied, so they are never broken.
func (r *Report) Print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s, store in %s\n", r.System, r.StoreDir)
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	var columns []table.ColumnConfig
	for i, width := range []int{widthState, widthName, widthFound, widthMeaning} {
		columns = append(columns, table.ColumnConfig{Number: i + 1, WidthMax: width, WidthMaxEnforcer: text.WrapSoft})
	}
	t.SetColumnConfigs(columns)
	t.AppendHeader(table.Row{"state", "what", "found", "what it means"})
	for _, f := range r.Findings {
		t.AppendRow(table.Row{string(f.State), f.Name, f.Found, f.Meaning})
	}
	t.Render()
	for _, state := range []State{Failure, Warning, Note} {
		r.printCures(w, state)
	}
	if slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.Cure, "sysctl -w") }) {
		_, _ = fmt.Fprintf(w, "\nsysctl -w lasts until the machine starts again: to keep a value, put it into /etc/sysctl.d/90-ringmq.conf, too.\n")
	}
	_, _ = fmt.Fprintf(w, "\n%s\n", r.Summary())
}

func (r *Report) printCures(w io.Writer, state State) {
	if r.Counts[state] == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "\ncures, %ss\n", state)
	for _, f := range r.Findings {
		if f.State != state {
			continue
		}
		name := f.Name
		for line := range strings.SplitSeq(f.Cure, "\n") {
			_, _ = fmt.Fprintf(w, "  %-*s  %s\n", widthName, name, line)
			name = ""
		}
	}
}

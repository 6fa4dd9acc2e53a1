package tune

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/ringmq/ringmq/ioengine"
)

// Exit statuses of "ringmq tune", as those of "ringmq doctor". They are documented in docs/tune.md.
const (
	ExitOK    = 0 // measured and written
	ExitNoRun = 3 // not measured, or not to the end; nothing was written
)

// Report is the result of a run.
type Report struct {
	System string `json:"system"` // operating system and processor type
	ioengine.Place
	StoreDir   string    `json:"storePathRootDir"`
	MeasuredAt time.Time `json:"measuredAt"`
	Seconds    float64   `json:"seconds"`         // the whole run
	Measured   float64   `json:"measuredSeconds"` // each measurement of each round
	Rounds     int       `json:"rounds"`
	Sections   []Section `json:"sections"`
}

// Section is the answer to one question.
type Section struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	About string `json:"about"`
	Rows  []Row  `json:"rows"`
	Scale string `json:"score"` // what the verdict compares
	// Choice is absent where nothing can be measured here.
	Choice *Verdict `json:"choice,omitempty"`

	columns []column
}

// Row is one kind under one load, or one kind that was refused.
type Row struct {
	Kind    string            `json:"kind"`
	Load    string            `json:"load,omitempty"`
	Refused string            `json:"refused,omitempty"`
	Figures map[string]Spread `json:"figures,omitempty"`
}

// column is a figure that the table shows.
type column struct {
	key, title string
	form       func(float64) string
}

// tuned is what goes into the store's root.
func (r *Report) tuned() *ioengine.Tuned {
	t := &ioengine.Tuned{Source: ioengine.FromTune, MeasuredAt: r.MeasuredAt, Place: r.Place}
	for _, s := range r.Sections {
		if s.Choice == nil {
			continue
		}
		chosen := &ioengine.Chosen{Name: s.Choice.Chosen, Why: s.Choice.Why}
		switch s.Name {
		case "syncCommit":
			t.SyncEngine = chosen
		case "asyncAppend":
			t.AsyncEngine = chosen
		case "coldRead":
			t.ColdRead = chosen
		case "reactor":
			t.Reactor = chosen
		}
	}
	return t
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Print writes the tables for people.
func (r *Report) Print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s, %s, %s on %s, store in %s\n", r.System, r.Kernel, orUnknown(r.FileSystem), orUnknown(r.Device), r.StoreDir)
	_, _ = fmt.Fprintf(w, "%d rounds in %.0f s, in turns, %.2f s each; figures are medians (lowest–highest of the rounds)\n", r.Rounds, r.Seconds, r.Measured)
	for i := range r.Sections {
		r.Sections[i].print(w)
	}
	_, _ = fmt.Fprintf(w, "\nwritten to %s in the store's folder: ioEngine=auto takes the log engines from there\n", ioengine.TunedName)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func (s *Section) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "\n%s: %s\n", s.Title, s.About)
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	header := table.Row{"", ""}
	for _, c := range s.columns {
		header = append(header, c.title)
	}
	t.AppendHeader(header)
	var refused []Row
	for i, row := range s.Rows {
		if row.Refused != "" {
			refused = append(refused, row)
			continue
		}
		name := row.Kind
		if i > 0 && s.Rows[i-1].Kind == row.Kind {
			name = ""
		}
		cells := table.Row{name, row.Load}
		for _, c := range s.columns {
			cells = append(cells, cell(row.Figures, c))
		}
		t.AppendRow(cells)
	}
	if len(refused) < len(s.Rows) {
		t.Render()
	}
	for _, row := range refused {
		_, _ = fmt.Fprintf(w, "  not measured  %s: %s\n", row.Kind, strings.ReplaceAll(row.Refused, "\n", "; "))
	}
	if s.Choice != nil {
		_, _ = fmt.Fprintf(w, "  choice        %s: %s\n  score         %s\n", s.Choice.Chosen, s.Choice.Why, s.Scale)
	}
}

func cell(figures map[string]Spread, c column) string {
	f, there := figures[c.key]
	if !there {
		return "-"
	}
	return fmt.Sprintf("%s (%s–%s)", c.form(f.Median), c.form(f.Min), c.form(f.Max))
}

// inThousands is for rates.
func inThousands(v float64) string {
	switch {
	case v >= 1_000_000:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 10_000:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

func inUnits(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// inMicros is for microseconds.
func inMicros(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.0fms", v/1000)
	case v >= 1000:
		return fmt.Sprintf("%.1fms", v/1000)
	case v >= 10:
		return fmt.Sprintf("%.0fµs", v)
	}
	return fmt.Sprintf("%.1fµs", v)
}
